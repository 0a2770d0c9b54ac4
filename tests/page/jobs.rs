//! Actions on all that match, while they run: there are few at once, and a stop keeps what is done.

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use super::access::{OWN, ask, form_token, log_in};
use super::actions::{ended, hidden};
use crate::http::v1::client::Api;
use crate::support::{sim_pins, until_true};

/// PINs that a job withdraws in one part.
const PART: usize = 500;

#[test]
fn a_fifth_job_at_once_is_refused_and_a_stopped_one_keeps_what_is_done() {
    let api = Api::start();
    let mut client = api.served.daemon.client();
    client.submit_all(&sim_pins("waiting", 4 * PART));
    let (_, boss) = log_in(&api, &api.admin);
    let form = form_token(&api, &boss);
    let preview = ask(&api, "GET", "/actions/cancel", &boss, &[], "").body;
    let [at, count] = ["counted_at", "count"].map(|name| hidden(&preview, name).replace(':', "%3A"));
    let begin = || {
        let body = format!("form={form}&do=cancel&counted_at={at}&count={count}");
        ask(&api, "POST", "/actions", &boss, &[OWN], &body)
    };

    // No job can end its first part while somebody else writes to the database.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = SqliteConnectOptions::new().filename(api.served.place.store());
    let mut other = runtime.block_on(options.connect()).unwrap();
    let mut execute = |sql: &'static str| {
        runtime.block_on(async { sqlx::query(sql).execute(&mut other).await.unwrap() });
    };
    execute("BEGIN IMMEDIATE");
    for _ in 0..4 {
        assert_eq!(begin().status, 303);
    }
    let refused = begin();
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("too many actions run already: wait for one, or stop one"),
        "{}",
        refused.body
    );
    until_true("the first part has its outcomes, which nobody can write", || {
        client.stats()["finishing"] == PART
    });
    for job in 1..=4 {
        let stop = format!("form={form}&job={job}");
        assert_eq!(ask(&api, "POST", "/actions/stop", &boss, &[OWN], &stop).status, 303);
    }
    let running = ask(&api, "GET", "/actions", &boss, &[], "").body;
    assert_eq!(running.matches("<strong>0</strong> of 2,000 PINs").count(), 4, "{running}");
    execute("ROLLBACK");

    let page = ended(&api, &boss);
    assert_eq!(page.matches(">stopped</span>").count(), 4, "{page}");
    assert_eq!(page.matches("<strong>500</strong> of 2,000 PINs").count(), 4, "{page}");
    assert_eq!(client.stats()["inFlight"], 3 * PART, "what was done stays done, and the rest is left alone");
    assert_eq!(begin().status, 303, "there is room for another one");
    ended(&api, &boss);
    assert_eq!(client.stats()["inFlight"], 0);
}
