use super::*;

/// Tables of a user.
fn migrator(tables: i64) -> Migrator {
    let of = |version: i64| {
        let sql = sqlx::SqlStr::from_static("SELECT 1");
        let kind = sqlx::migrate::MigrationType::Simple;
        sqlx::migrate::Migration::new(version, format!("{version}").into(), kind, sql, false)
    };
    Migrator { migrations: (1..=tables).map(of).collect::<Vec<_>>().into(), ..Migrator::DEFAULT }
}

async fn write(pool: &SqlitePool) {
    sqlx::query("CREATE TABLE IF NOT EXISTS things (thing TEXT)").execute(pool).await.unwrap();
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    let place = tempfile::tempdir().unwrap();
    let mode = |mode| Permissions::from_mode(mode);
    std::fs::set_permissions(place.path(), mode(0o755)).unwrap();
    let files = || std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path());
    for _ in 0..2 {
        let directory = StateDirectory::open(place.path(), "x").unwrap();
        let writer = directory.writer(&migrator(1)).await.unwrap();
        write(&writer).await;
        directory.readers(1).await.unwrap();
        assert!(files().count() >= 4, "{:?}", files().collect::<Vec<_>>());
        for path in files() {
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        // As an earlier version left them, with what a process that is killed leaves.
        writer.close().await;
        for suffix in BESIDE {
            std::fs::write(place.path().join(format!("x.db{suffix}")), "").unwrap();
        }
        for path in files() {
            std::fs::set_permissions(path, mode(0o644)).unwrap();
        }
    }
}

#[tokio::test]
async fn a_second_user_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let first = StateDirectory::open(place.path(), "x").unwrap();
    assert!(matches!(StateDirectory::open(place.path(), "x"), Err(StateError::InUse { .. })));
    drop(first);
    StateDirectory::open(place.path(), "x").unwrap();
}

#[tokio::test]
async fn what_a_later_version_wrote_is_left_alone_and_said_so() {
    let place = tempfile::tempdir().unwrap();
    let directory = StateDirectory::open(place.path(), "x").unwrap();
    directory.writer(&migrator(2)).await.unwrap().close().await;
    let refused = directory.writer(&migrator(1)).await.unwrap_err();
    assert!(matches!(refused, StateError::Later { version: 2, .. }), "{refused:?}");
    assert!(refused.to_string().contains("start that version"), "{refused}");
    directory.writer(&migrator(2)).await.unwrap();
}
