//! PostgreSQL finds a whole reference by its indexes.

use sqlx::{Connection, Executor, PgConnection};

use super::super::open::open_to_move;
use super::*;

#[path = "../../../tests/support/not_run.rs"]
mod not_run;
#[path = "../../../tests/support/postgres.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod server;

/// What the planner would do for a reference.
async fn plan(connection: &mut PgConnection, sql: &str) -> String {
    // The types of the parameters are those that the values have.
    let values = match sql {
        REACHED_REFERRING => "(smallint, text, bigint, text)",
        MATCHING_REFERRING => {
            "(smallint, text, smallint, text, text, bigint, bigint, bigint, bigint, bigint)"
        }
        PINS_REFERRING | NEWEST_REFERRING => "(text, bigint)",
        _ => "(text, bigint, bigint, bigint)",
    };
    let given = match sql {
        REACHED_REFERRING => "(-1, '', 9999, 'order-42')",
        MATCHING_REFERRING => "(-1, '', 256, 'order-42', '', 9000000000000000, 0, 9000000000000000, 0, 100)",
        PINS_REFERRING | NEWEST_REFERRING => "('order-42', 100)",
        _ => "('order-42', 0, 256, 262144)",
    };
    let prepare = format!("DEALLOCATE ALL; PREPARE asked {values} AS {sql}");
    connection.execute(sqlx::AssertSqlSafe(prepare)).await.unwrap();
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE asked {given}"));
    let lines: Vec<String> =
        connection.fetch_all(explain).await.unwrap().iter().map(|row| row.get(0)).collect();
    lines.join("\n")
}

#[tokio::test]
async fn a_whole_reference_is_found_by_an_index() {
    let Some(server) = server::Postgres::shared() else { return };
    let database = server.database();
    let mut connection = open_to_move(&database.url().into(), "shown").await.unwrap();
    // Enough rows that an index pays off. One PIN in a thousand has no reference.
    connection
        .execute(
            "INSERT INTO pin (slot, pin_id, submitted_at, deadline_at, reference) \
             SELECT n % 256, 'P' || n, n, n, CASE WHEN n % 1000 > 0 THEN 'order-' || n END FROM generate_series(1, 20000) n; \
             INSERT INTO outcome (seq, lane, pin_id, finished_at, record) \
             SELECT n, 1, 'P' || n, n, '{\"seq\":' || n || ',\"reference\":\"order-' || n || '\",\"submittedAt\":\"x\"}' \
             FROM generate_series(1, 20000) n; \
             ANALYZE pin; ANALYZE outcome",
        )
        .await
        .unwrap();
    for (sql, index) in [
        (REACHED_REFERRING, "pin_by_reference"),
        (MATCHING_REFERRING, "pin_by_reference"),
        (PINS_REFERRING, "pin_by_reference"),
        (NEWEST_REFERRING, "outcome_by_reference"),
        (OUTCOMES_REFERRING, "outcome_by_reference"),
    ] {
        for mode in ["force_custom_plan", "force_generic_plan"] {
            let mode = format!("SET plan_cache_mode = {mode}");
            connection.execute(sqlx::AssertSqlSafe(mode.clone())).await.unwrap();
            let plan = plan(&mut connection, sql).await;
            assert!(plan.contains(index), "{mode}: {sql}\n{plan}");
        }
    }
    connection.close().await.unwrap();
}

#[test]
fn a_reference_is_looked_for_as_records_have_it() {
    assert_eq!(in_record("order-42"), "order-42");
    assert_eq!(in_record("a\"b\\c\n\u{2028}é"), r#"a\"b\\c\n\u2028é"#);
}
