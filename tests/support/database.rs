//! Changes of the database file from outside.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// Executes this on a database that no daemon uses.
#[track_caller]
pub fn change(path: &Path, sql: &str) {
    change_and(path, sql, || ());
}

/// As [`change`], and leaves the files as a `kill -9` afterwards would.
#[track_caller]
pub fn change_as_if_killed(path: &Path, sql: &str) {
    let files = ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    });
    let killed = change_and(path, sql, || files.each_ref().map(|file| fs::read(file).unwrap()));
    files.iter().zip(killed).for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
}

fn change_and<T>(path: &Path, sql: &str, look: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        let seen = look();
        connection.close().await.unwrap();
        seen
    })
}

/// The only number of this query, on a database that no daemon uses.
#[track_caller]
pub fn count(path: &Path, sql: &str) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection =
            SqliteConnectOptions::new().filename(path).read_only(true).connect().await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
    })
}

/// The only column of this query, on a database that no daemon uses.
#[track_caller]
pub fn column(path: &Path, sql: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection =
            SqliteConnectOptions::new().filename(path).read_only(true).connect().await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap()
    })
}

/// Damages a file.
pub fn flip_a_byte(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}
