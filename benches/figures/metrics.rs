//! Reads the daemon's /metrics: sums, and histograms between two scrapes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Scrapes the metrics once.
pub fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the metrics");
    let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the metrics");
    answer
}

/// Returns the sum of a metric over its labels.
pub fn sum(name: &str, scraped: &str) -> f64 {
    let own = |rest: &str| rest.starts_with(['{', ' ']);
    scraped.lines().filter(|line| line.strip_prefix(name).is_some_and(own)).map(last_number).sum()
}

/// The buckets of a histogram: upper bound and cumulative count.
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    /// Returns what was observed between two scrapes.
    pub fn between(name: &str, before: &str, after: &str) -> Self {
        let (before, after) = (buckets(name, before), buckets(name, after));
        let earlier = |bound: f64| before.iter().find(|(b, _)| *b == bound).map_or(0.0, |(_, count)| *count);
        Self(after.into_iter().map(|(bound, count)| (bound, count - earlier(bound))).collect())
    }

    pub fn count(&self) -> f64 {
        self.0.last().map_or(0.0, |(_, count)| *count)
    }

    /// Computes a quantile as Prometheus does: assumes an even distribution within a bucket.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let rank = self.count() * quantile;
        let (mut lower, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= rank && bound.is_finite() {
                return lower + (bound - lower) * (rank - below) / (count - below).max(1.0);
            }
            (lower, below) = (bound, count);
        }
        lower
    }

    /// Returns the share of values up to this bound; exact only at a bucket's bound.
    pub fn share_within(&self, bound: f64) -> f64 {
        let within = self.0.iter().rfind(|(upper, _)| *upper <= bound).map_or(0.0, |(_, count)| *count);
        within / self.count().max(1.0)
    }
}

fn buckets(name: &str, scraped: &str) -> Vec<(f64, f64)> {
    let prefix = format!("{name}_bucket{{le=\"");
    let lines = scraped.lines().filter_map(|line| line.strip_prefix(&prefix));
    lines.map(|line| (number(line.split('"').next().unwrap_or_default()), last_number(line))).collect()
}

fn last_number(line: &str) -> f64 {
    number(line.rsplit(' ').next().unwrap_or_default())
}

fn number(text: &str) -> f64 {
    match text.trim() {
        "+Inf" => f64::INFINITY,
        text => text.parse().expect("a number"),
    }
}
