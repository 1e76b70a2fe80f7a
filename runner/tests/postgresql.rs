//! A real PostgreSQL is backed up, archived, destroyed and brought back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::sync::Arc;

use culvert_resources::Method;
use culvert_resources::instance::{ArchiveConfig, SourceConfig};
use culvert_runner::backup::dump::Dump;
use culvert_runner::backup::error::JobError;
use culvert_runner::backup::make::{Wanted, make};
use culvert_runner::backup::manifest::{Sealed, Service};
use culvert_runner::backup::postgresql::{Logical, Physical};
use culvert_runner::pack::Meter;
use culvert_runner::restore::{Source, fetch_base, load_logical};
use support::Share;
use support::postgres::Postgres;
use tokio_util::sync::CancellationToken;

const SERVICE: &str = "services/data.shop.12345678";

fn wanted(name: &str, method: Method) -> Wanted {
    Wanted {
        name: name.into(),
        folder: format!("{SERVICE}/backups/{name}"),
        engine: "postgresql".into(),
        method,
        service: Service {
            namespace: "data".into(),
            name: "shop".into(),
            uid: "12345678-0".into(),
            owner: "app".into(),
            spec: serde_json::json!({"engine": "postgresql"}),
        },
        started_at: "2026-11-25T03:00:00Z".parse().unwrap(),
    }
}

fn archive(share: &Share) -> ArchiveConfig {
    ArchiveConfig { target: share.config.clone(), path: SERVICE.into() }
}

fn physical(postgres: &Postgres, archived: bool) -> Box<dyn Dump> {
    Box::new(Physical::new(postgres.login(), postgres.login(), Some(Postgres::programs()), archived))
}

async fn back_up(share: &Share, name: &str, method: Method, dump: &mut dyn Dump) -> Result<Sealed, JobError> {
    make(&wanted(name, method), &share.storage(), dump, &Meter::default(), &CancellationToken::new()).await
}

fn source(share: &Share, name: &str, point_in_time: Option<String>) -> SourceConfig {
    SourceConfig {
        restore: "again".into(),
        target: share.config.clone(),
        path: format!("{SERVICE}/backups/{name}"),
        manifest_digest: None,
        point_in_time,
    }
}

/// Brings a physical backup back into a new server, as the runner beside an engine does.
async fn restore(share: &Share, name: &str, point_in_time: Option<String>) -> Result<Postgres, JobError> {
    let config = source(share, name, point_in_time);
    let source = Source::open(&config).await?;
    let mut postgres = Postgres::folders();
    fetch_base(&source, &postgres.data(), &Arc::new(Meter::default())).await?;
    recover(&source, &postgres.data());
    postgres.own_data();
    postgres.configure(None, Some(config));
    postgres.serve();
    Ok(postgres)
}

fn recover(source: &Source, data: &Path) {
    let parameters = source.recovery().into_iter().map(|(name, value)| format!("{name} = '{value}'\n"));
    let mut conf = std::fs::read_to_string(data.join("postgresql.auto.conf")).unwrap();
    conf.extend(parameters);
    std::fs::write(data.join("postgresql.auto.conf"), conf).unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_log_bring_back_every_moment_between() {
    let share = Share::new();
    let postgres = Postgres::start(Some(archive(&share)));
    postgres.sql("create table orders as select 1 as id");
    let sealed = back_up(&share, "one", Method::Physical, &mut *physical(&postgres, true)).await.unwrap();
    assert!(sealed.manifest.encryption.is_some() && sealed.manifest.version.starts_with("15."));
    postgres.sql("insert into orders values (2)");
    let between = postgres
        .sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    postgres.sql("insert into orders values (3)");
    postgres.archive_now();
    drop(postgres);

    let all = restore(&share, "one", None).await.unwrap();
    assert_eq!(all.sql("select string_agg(id::text, ' ' order by id) from orders"), "1 2 3");
    drop(all);
    let point = restore(&share, "one", Some(between)).await.unwrap();
    assert_eq!(point.sql("select string_agg(id::text, ' ' order by id) from orders"), "1 2");
    drop(point);

    let error = Source::open(&source(&share, "one", Some("2020-01-01T00:00:00Z".into()))).await.unwrap_err();
    assert_eq!(error.failure("check").code, "point_outside_window");
    let until = error.to_string();
    assert!(until.contains(&sealed.manifest.recoverable.from.to_string()), "{until}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_was_made_is_not_made_again() {
    let share = Share::new();
    let postgres = Postgres::start(None);
    let first = back_up(&share, "one", Method::Physical, &mut *physical(&postgres, false)).await.unwrap();
    let again = back_up(&share, "one", Method::Physical, &mut *physical(&postgres, false)).await.unwrap();
    assert_eq!(first.digest, again.digest);
    let restored = restore(&share, "one", None).await.unwrap();
    assert_eq!(restored.sql("select 1"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_bring_back_databases_and_users() {
    let share = Share::new();
    let old = Postgres::start(None);
    old.sql("create role app login");
    old.sql("create role \"read er\" in role app");
    old.sql("create database app owner app");
    old.sql("create database \"it's\"");
    old.query(
        "app",
        "set role app; create schema s; create table s.orders as select generate_series(1, 1000) as id",
    )
    .unwrap();
    old.query("it's", "create table t (x text default 'y'); insert into t values ('z')").unwrap();
    let mut dump = Logical::new(old.login(), Some(Postgres::programs()));
    let sealed = back_up(&share, "two", Method::Logical, &mut dump).await.unwrap();
    assert_eq!(sealed.manifest.streams.len(), 4);
    drop(old);

    let new = Postgres::start(None);
    new.sql("create role app login");
    new.sql("create database app owner app");
    let source = Source::open(&source(&share, "two", None)).await.unwrap();
    load_logical(&source, &new.login(), &Postgres::programs(), &Arc::new(Meter::default())).await.unwrap();
    assert_eq!(new.query("app", "select count(*) from s.orders").unwrap(), "1000");
    assert_eq!(
        new.query("app", "select tableowner from pg_tables where tablename = 'orders'").unwrap(),
        "app"
    );
    assert_eq!(new.query("it's", "select x from t").unwrap(), "z");
    assert_eq!(new.sql("select pg_has_role('read er', 'app', 'member')"), "t");
}
