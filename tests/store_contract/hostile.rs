//! A database that a hostile role uses too: none of its functions run with the rights of pinwatch, and none of its
//! tables are used.

use std::time::Duration;

use pinwatch::clock::{Clock, Steady};
use pinwatch::slot::Slots;
use pinwatch::store::Transaction;
use pinwatch::store::postgres::{NodeReport, OpenError, Renewal, Shared as _, open};

use super::place::{Node, Place, node_at, pin};
use crate::support::postgres::{Database, PASSWORD, USER};

/// A database of a role that is not a superuser, and another role that may connect.
struct Shared {
    database: Database,
    owner: String,
    mallory: String,
}

impl Shared {
    fn new() -> Option<Self> {
        let Place::Postgres(database) = Place::postgres()? else { return None };
        let name = database.one("SELECT current_database()");
        let (owner, mallory) = (format!("owner_{name}"), format!("mallory_{name}"));
        database.execute(&format!(
            "CREATE ROLE {owner} LOGIN PASSWORD 'geheim'; CREATE ROLE {mallory}; ALTER DATABASE {name} OWNER TO {owner}"
        ));
        Some(Self { database, owner, mallory })
    }

    fn url(&self) -> String {
        self.database.url().replace(&format!("{USER}:{PASSWORD}"), &format!("{}:geheim", self.owner))
    }

    fn as_role(&self, role: &str, sql: &str) {
        self.database.execute(&format!("SET ROLE {role}; {sql}"));
    }

    fn as_mallory(&self, sql: &str) {
        self.as_role(&self.mallory, sql);
    }

    /// Lets it create functions that fit our statements better than PostgreSQL's own, or as well. Each notes who calls it.
    fn attack(&self) {
        self.database.execute(&format!("GRANT CREATE ON SCHEMA public TO {}", self.mallory));
        self.as_mallory(
            "CREATE TABLE public.called (what text, by_whom name); GRANT INSERT ON public.called TO PUBLIC",
        );
        for (name, arguments, result) in [
            ("min", "name", "text"),
            ("nextval", "text", "bigint"),
            ("count", "bigint", "bigint"),
            ("count", "integer", "bigint"),
            ("unnest", "text[]", "text"),
        ] {
            self.as_mallory(&format!(
                "CREATE FUNCTION public.{name}({arguments}) RETURNS {result} LANGUAGE sql AS $$ \
                 INSERT INTO public.called VALUES ('{name}', current_user); SELECT NULL::{result} $$"
            ));
        }
        self.as_mallory(
            "CREATE FUNCTION public.same(smallint, bigint) RETURNS boolean LANGUAGE sql AS $$ \
             INSERT INTO public.called VALUES ('=', current_user); SELECT true $$; \
             CREATE OPERATOR public.= (LEFTARG = smallint, RIGHTARG = bigint, FUNCTION = public.same)",
        );
    }

    fn assert_no_function_was_called(&self) {
        let called = self.database.query("SELECT * FROM public.called");
        assert!(called.is_empty(), "{called:?}");
    }

    /// The schemas that have tables of pinwatch.
    fn schemas(&self) -> Vec<String> {
        let sql = "SELECT schemaname FROM pg_tables WHERE tablename = 'outcome' ORDER BY 1";
        self.database.query(sql).concat()
    }

    /// A database of an older version that had no schema of its own.
    async fn of_an_older_version(&self) {
        let mut node = self.node("older").await;
        node.submit_and_finish(&["KEPT"]).await;
        node.writes.close().await.unwrap();
        let relations = "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'pinwatch'::regnamespace AND relkind IN ('r', 'S') \
             AND relname <> 'node_id_seq'";
        for relation in self.database.query(relations) {
            let kind = if relation[1] == "S" { "SEQUENCE" } else { "TABLE" };
            self.database.execute(&format!("ALTER {kind} pinwatch.{} SET SCHEMA public", relation[0]));
        }
        self.database.execute("DROP SCHEMA pinwatch");
        assert_eq!(self.schemas(), ["public"]);
    }

    async fn node(&self, name: &str) -> Node {
        node_at(&self.url(), name, &Slots::ALL).await
    }

    /// The error of an open.
    async fn refusal(&self) -> OpenError {
        let opened =
            open(&self.url().into(), "the database", "a".into(), Duration::from_secs(5), &Clock::system())
                .await;
        opened.err().expect("it was opened")
    }
}

/// Uses every operation of a store for a PIN.
async fn use_every_operation(node: &mut Node, id: &str) {
    node.submit_and_finish(&[id]).await;
    node.writes.register_sink("hook", true).await.unwrap();
    assert!(node.store.outcome_of(&pin(id)).await.unwrap().is_some());
    node.store.outcomes_after(0, 10).await.unwrap();
    let position = node.store.before_last(1).await.unwrap();
    assert!(!node.store.stretch(&position, 10).await.unwrap().outcomes.is_empty());
    node.store.dead_letters(None, None, &(0..=i64::MAX), &(String::new(), 0), 10).await.unwrap();
    node.store.failed_counts().await.unwrap();
    let membership = node.membership();
    assert!(membership.renew(&NodeReport::default()).await.unwrap() == Renewal::Runs);
    assert!(!membership.look().await.unwrap().nodes.is_empty());
    membership.orphans(&["hook".into()]).await.unwrap();
    let questions = membership.questions();
    questions.pin_states(&[pin(id)]).await.unwrap();
    questions.listen().await.unwrap();
    let prune = Some(Steady::from_millis(946_684_800_000));
    node.apply(Transaction { prune, ..Transaction::default() }).await;
}

#[tokio::test]
async fn no_function_of_another_role_runs_with_our_rights() {
    let Some(shared) = Shared::new() else { return };
    shared.attack();
    let mut node = shared.node("a").await;
    use_every_operation(&mut node, "A").await;
    shared.assert_no_function_was_called();
    assert_eq!(shared.schemas(), ["pinwatch"]);
    node.writes.close().await.unwrap();
    // The functions are called by the role's own search_path, so the test is meaningful.
    shared.as_role(&shared.owner, "SET search_path = public, pinwatch; SELECT nextval('outcome_seq')");
    assert_eq!(shared.database.one("SELECT by_whom FROM public.called"), shared.owner);
}

#[tokio::test]
async fn tables_of_an_older_version_are_not_moved_while_no_other_role_can_create_there() {
    let Some(shared) = Shared::new() else { return };
    shared.of_an_older_version().await;
    let mut node = shared.node("older").await;
    use_every_operation(&mut node, "A").await;
    assert!(node.store.outcome_of(&pin("KEPT")).await.unwrap().is_some());
    assert_eq!(shared.schemas(), ["public"]);
}

#[tokio::test]
async fn tables_of_an_older_version_are_moved_out_of_a_schema_in_which_others_can_create() {
    let Some(shared) = Shared::new() else { return };
    shared.of_an_older_version().await;
    shared.attack();
    let mut node = shared.node("older").await;
    use_every_operation(&mut node, "A").await;
    assert!(node.store.outcome_of(&pin("KEPT")).await.unwrap().is_some());
    shared.assert_no_function_was_called();
    assert_eq!(shared.schemas(), ["pinwatch"]);
    // All that it made is with them.
    let left =
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname <> 'called'";
    assert_eq!(shared.database.count(left), 0);
}

#[tokio::test]
async fn tables_are_not_moved_away_from_nodes_that_run() {
    let Some(shared) = Shared::new() else { return };
    shared.of_an_older_version().await;
    let mut running = shared.node("running").await;
    shared.database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC");
    let said = shared.refusal().await.to_string();
    assert!(said.contains("every role may create in it") && said.contains("\"running\""), "{said}");
    assert_eq!(shared.schemas(), ["public"]);
    use_every_operation(&mut running, "A").await;

    // With the right taken away, as the message says, all go on where they are.
    shared.database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let mut another = node_at(&shared.url(), "another", &Slots::NONE).await;
    assert!(another.renew().await);
    use_every_operation(&mut running, "B").await;
}

#[tokio::test]
async fn tables_of_another_role_are_refused() {
    let Some(shared) = Shared::new() else { return };
    shared.of_an_older_version().await;
    shared.database.execute(&format!("ALTER TABLE public.node OWNER TO {}", shared.mallory));
    let refusal = shared.refusal().await;
    assert!(matches!(refusal, OpenError::Foreign { .. }), "{refusal}");
    let what = format!("the table \"node\" belongs to the role {:?}", shared.mallory);
    assert!(refusal.to_string().contains(&what), "{refusal}");
}

#[tokio::test]
async fn a_schema_in_which_another_role_can_create_is_refused() {
    let Some(shared) = Shared::new() else { return };
    let refused = async |why: &str| {
        let refusal = shared.refusal().await;
        assert!(matches!(refusal, OpenError::Unsafe { .. }), "{refusal}");
        assert!(refusal.to_string().contains(why), "{refusal}");
    };
    let mallory = &shared.mallory;
    shared.database.execute(&format!("CREATE SCHEMA pinwatch AUTHORIZATION {mallory}"));
    refused(&format!("it belongs to the role {mallory:?}")).await;
    assert!(shared.schemas().is_empty(), "nothing was made");

    shared.database.execute(&format!("ALTER SCHEMA pinwatch OWNER TO {}", shared.owner));
    shared.node("a").await.writes.close().await.unwrap();
    shared.database.execute(&format!("GRANT CREATE ON SCHEMA pinwatch TO {mallory}"));
    refused(&format!("the role {mallory:?} may create in it")).await;

    // What was made meanwhile stays.
    shared.as_mallory("CREATE FUNCTION pinwatch.min(name) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'");
    shared.database.execute(&format!("REVOKE CREATE ON SCHEMA pinwatch FROM {mallory}"));
    refused(&format!("it has the function \"min\" of the role {mallory:?}")).await;
    shared.database.execute("DROP FUNCTION pinwatch.min(name)");
    shared.node("a").await;
}
