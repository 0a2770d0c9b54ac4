//! `docs/metrics.md` documents every metric; alerts and dashboard use no others.

use crate::support::not_run::not_run;
use std::collections::BTreeSet;
use std::process::Command;

use pinwatch::metrics::catalogue::{self, Kind, Metric};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../docs/alerts.yml");
const DASHBOARD: &str = include_str!("../../docs/grafana-dashboard.json");

#[test]
fn every_metric_is_documented_with_its_type_and_labels_and_no_other_is() {
    let rows = DOCUMENT.lines().filter_map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let ["", name, kind, labels, tells, _bad, ""] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?;
        assert!(!tells.is_empty(), "{name} tells nothing");
        let labels =
            labels.split(", ").map(|label| label.trim_matches('`')).filter(|label| !label.is_empty());
        Some((name.to_owned(), kind.to_owned(), labels.map(str::to_owned).collect::<Vec<_>>()))
    });
    let documented: Vec<_> = rows.collect();
    let row = |metric: &Metric| {
        let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>();
        (metric.name.to_owned(), metric.kind.as_str().to_owned(), labels)
    };
    let sorted = |mut rows: Vec<_>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(documented), sorted(catalogue::ALL.iter().map(row).collect()));
}

#[test]
fn alerts_dashboard_and_document_name_only_existing_metrics() {
    let known: BTreeSet<String> = catalogue::ALL
        .iter()
        .flat_map(|metric| {
            let parts: &[&str] =
                if metric.kind == Kind::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            parts.iter().map(|part| format!("{}{part}", metric.name))
        })
        .collect();
    for (document, text) in [("docs/alerts.yml", ALERTS), ("docs/grafana-dashboard.json", DASHBOARD)] {
        let names = names(text);
        assert!(names.len() > 10, "{document} names {names:?}");
        for name in names {
            assert!(known.contains(name), "{document} names {name}, which there isn't");
        }
    }
    for name in names(DOCUMENT) {
        assert!(catalogue::ALL.iter().any(|metric| metric.name == name), "docs/metrics.md names {name}");
    }
}

/// Everything in a text that looks like the name of a metric of ours.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("pinwatch_") || word.starts_with("process_")).collect()
}

#[test]
fn the_dashboard_is_valid_json_and_every_panel_has_a_query() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("there are panels");
    let mut ids = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64()), "the id of {} is taken", panel["title"]);
        if panel["type"] != "row" {
            let targets = panel["targets"].as_array().expect("a panel has targets");
            assert!(!targets.is_empty(), "{}", panel["title"]);
            for target in targets {
                assert!(!names(target["expr"].as_str().expect("an expression")).is_empty(), "{target}");
            }
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_alerts() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/alerts.yml");
    match Command::new("promtool").args(["check", "rules", file]).output() {
        Ok(checked) => assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr)),
        Err(_) => not_run("the alert rules, by promtool", "the package prometheus"),
    }
}
