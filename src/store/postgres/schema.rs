//! The schema of the tables.
//!
//! Promises that no other role can put anything there that would run with this role's rights. PostgreSQL looks for an
//! unqualified function, operator or table in the schemas of `search_path`; a function there that fits the arguments
//! better than PostgreSQL's own wins. So the `search_path` of every connection has only PostgreSQL's own schema and the
//! schema of the tables, and only trusted roles may create anything in them. Knows nothing of what the tables contain.

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::error::{OpenError, judge};

/// The schema that is created for the tables. Older versions created them in the first schema of the role's own
/// `search_path`, mostly `public`; they stay there if that is safe.
const OWN: &str = "pinwatch";

/// All tables and sequences, in the order in which they are locked: every writing transaction begins with `node`.
const RELATIONS: [&str; 12] = [
    "node",
    "slot",
    "pin",
    "inbox",
    "outcome",
    "cursor",
    "delivery",
    "dropped",
    "pruned",
    "steady_begin",
    "outcome_seq",
    MIGRATIONS,
];

/// The table in which sqlx records the schema's version.
const MIGRATIONS: &str = "_sqlx_migrations";

/// The `search_path` of a connection before the schema of the tables is known.
pub const NOWHERE: &str = "pg_catalog, pg_temp";

/// The roles that need no function to do what they like here: this role, superusers and the database's owner.
const TRUSTED: &str = "SELECT r.oid FROM pg_roles r JOIN pg_database d ON d.datname = current_database() \
     WHERE r.rolsuper OR r.oid = d.datdba OR r.rolname IN (current_user, 'pg_database_owner')";

/// The advisory lock ("pinw") that prevents two processes from creating or moving the tables at once.
const LOCK: i64 = 0x7069_6e77;

/// What has to be done with the tables.
enum Place {
    /// Nothing: they are in this schema, which is safe.
    At(String),
    /// Move them to [`OWN`], because their schema is not safe for this reason.
    Unsafe { schema: String, why: String },
    /// Create them.
    None,
}

/// The `search_path` for tables in this schema. PostgreSQL searches its own schema first if the path does not name it,
/// and creates new tables in the schema that is named first.
pub fn search_path(schema: &str) -> String {
    format!("{}, pg_temp", identifier(schema))
}

/// Finds the schema of the tables, or creates it; `connection` must be a new one. Moves the tables out of an unsafe
/// schema, unless nodes run.
///
/// # Errors
/// The tables are foreign, their schema is unsafe and can't be left, or the database can't be used.
pub async fn settle(connection: &mut PgConnection, url: &str) -> Result<String, OpenError> {
    let judge = |error| judge(url, error);
    // Qualified, because at this point another role's function could still be found first.
    let default: Option<String> = sqlx::query_scalar("SELECT pg_catalog.current_schema()::pg_catalog.text")
        .fetch_one(&mut *connection)
        .await
        .map_err(judge)?;
    connection.execute(AssertSqlSafe(format!("SET search_path = {NOWHERE}"))).await.map_err(judge)?;
    let default = default.as_deref();
    if let Place::At(schema) = find(connection, url, default).await? {
        return Ok(schema);
    }
    connection.execute("BEGIN; SET LOCAL lock_timeout = '5s'").await.map_err(judge)?;
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK);
    lock.execute(&mut *connection).await.map_err(judge)?;
    // Another node may have created or moved them meanwhile.
    let schema = match find(connection, url, default).await? {
        Place::At(schema) => schema,
        Place::Unsafe { schema, why } => {
            nobody_runs(connection, url, &schema, why).await?;
            make(connection, url).await?;
            move_from(connection, &schema).await.map_err(judge)?;
            OWN.to_owned()
        }
        Place::None => {
            make(connection, url).await?;
            OWN.to_owned()
        }
    };
    connection.execute("COMMIT").await.map_err(judge)?;
    Ok(schema)
}

async fn find(connection: &mut PgConnection, url: &str, default: Option<&str>) -> Result<Place, OpenError> {
    let schemas: Vec<&str> = [OWN].into_iter().chain(default).collect();
    // One statement, because between two of them another node could create all tables. Returns the owner if it is not a
    // trusted role.
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, CASE WHEN c.relowner NOT IN ({TRUSTED}) \
             THEN pg_get_userbyid(c.relowner)::text END \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = ANY($1) AND c.relname = ANY($2) ORDER BY c.relname"
    );
    let found: Vec<(String, String, Option<String>)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(&schemas)
        .bind(RELATIONS.as_slice())
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| judge(url, error))?;
    let has = |schema: &str, relation: &str| {
        found.iter().any(|(schema_of, name, _)| schema_of == schema && name == relation)
    };
    let foreign = |what| OpenError::Foreign { url: url.to_owned(), what };
    // In any other schema, a list of migrations without `outcome` may be another program's.
    let is_ours = |schema: &str| has(schema, MIGRATIONS) && (schema == OWN || has(schema, "outcome"));
    let Some(schema) = schemas.into_iter().find(|schema| is_ours(schema)) else {
        return match found.into_iter().find(|(schema, ..)| schema == OWN) {
            Some((_, table, _)) => Err(foreign(format!("there is a table {table:?}"))),
            None => Ok(Place::None),
        };
    };
    for (schema_of, table, owner) in &found {
        if let Some(owner) = owner.as_ref().filter(|_| schema_of == schema) {
            return Err(foreign(format!("the table {table:?} belongs to the role {owner:?}")));
        }
    }
    let schema = schema.to_owned();
    Ok(match danger(connection, url, &schema).await? {
        None => Place::At(schema),
        Some(why) if schema == OWN => return Err(refused(url, &schema, why, String::new())),
        Some(why) => Place::Unsafe { schema, why },
    })
}

/// Why another role could have its code run by the users of this schema; `None` if none could.
async fn danger(connection: &mut PgConnection, url: &str, schema: &str) -> Result<Option<String>, OpenError> {
    let sql = format!(
        "WITH trusted AS ({TRUSTED}), place AS (SELECT * FROM pg_namespace WHERE nspname = $1), \
         others AS ( \
             SELECT 'owner' AS what, ''::name AS object, nspowner AS role FROM place \
             UNION ALL \
             SELECT 'creator', '', grantee FROM place, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) \
             WHERE privilege_type = 'CREATE' \
             UNION ALL \
             SELECT 'function', proname, proowner FROM pg_proc JOIN place ON pronamespace = place.oid \
             UNION ALL \
             SELECT 'operator', oprname, oprowner FROM pg_operator JOIN place ON oprnamespace = place.oid) \
         SELECT what, object::text, CASE WHEN role <> 0 THEN pg_get_userbyid(role)::text END \
         FROM others WHERE role NOT IN (SELECT oid FROM trusted) LIMIT 1"
    );
    let found: Option<(String, String, Option<String>)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(schema)
        .fetch_optional(connection)
        .await
        .map_err(|error| judge(url, error))?;
    Ok(found.map(|(what, object, role)| {
        let role = role.map_or_else(|| "every role".to_owned(), |role| format!("the role {role:?}"));
        match what.as_str() {
            "owner" => format!("it belongs to {role}"),
            "creator" => format!("{role} may create in it"),
            what => format!("it has the {what} {object:?} of {role}"),
        }
    }))
}

/// Creates the schema [`OWN`] if it does not exist.
async fn make(connection: &mut PgConnection, url: &str) -> Result<(), OpenError> {
    connection
        .execute(AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {OWN}")))
        .await
        .map_err(|error| judge(url, error))?;
    match danger(connection, url, OWN).await? {
        None => Ok(()),
        Some(why) => Err(refused(url, OWN, why, String::new())),
    }
}

/// Checks that no node runs, because moving the tables would take them away from it.
async fn nobody_runs(
    connection: &mut PgConnection,
    url: &str,
    schema: &str,
    why: String,
) -> Result<(), OpenError> {
    let node = format!("{}.node", identifier(schema));
    let sql = format!("SELECT name FROM {node} WHERE lease_until > clock_timestamp() ORDER BY name");
    let lock = format!("LOCK TABLE {node} IN ACCESS EXCLUSIVE MODE");
    connection.execute(AssertSqlSafe(lock)).await.map_err(|error| judge(url, error))?;
    let alive: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .map_err(|error| judge(url, error))?;
    if alive.is_empty() {
        return Ok(());
    }
    let or = format!(
        ", or stop the nodes that run ({}): the next start moves the tables to a schema of their own",
        alive.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
    );
    Err(refused(url, schema, why, or))
}

async fn move_from(connection: &mut PgConnection, schema: &str) -> Result<(), sqlx::Error> {
    for relation in RELATIONS {
        let kind = if relation == "outcome_seq" { "SEQUENCE" } else { "TABLE" };
        let from = identifier(schema);
        let sql = format!("ALTER {kind} IF EXISTS {from}.{relation} SET SCHEMA {OWN}");
        connection.execute(AssertSqlSafe(sql)).await?;
    }
    Ok(())
}

fn refused(url: &str, schema: &str, why: String, or: String) -> OpenError {
    OpenError::Unsafe { url: url.to_owned(), schema: schema.to_owned(), why, or }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
