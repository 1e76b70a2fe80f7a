//! Fills a server that runs from a logical backup, with the server's own programs.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::Arc;

use culvert_resources::Method;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::Source;
use crate::backup::error::JobError;
use crate::backup::manifest::{Content, Stream};
use crate::backup::postgresql::{Programs, Server};
use crate::pack::Meter;

/// Longest SQL of what belongs to no database.
const LONGEST_GLOBALS: u64 = 64 << 20;
/// Blocks on their way to a program.
const BLOCKS: usize = 4;
/// Users of ours, which the new service has made for itself.
const OURS: &str = "culvert_";
/// The database that is always there, and that no program can replace while it uses it.
const ALWAYS_THERE: &str = "postgres";

/// Fills a fresh server from a logical backup. `server` logs in as a superuser.
///
/// # Errors
/// The target, damage, or the server; what was filled is to be thrown away then.
pub async fn load_logical(
    source: &Source,
    server: &Server,
    programs: &Programs,
    meter: &Arc<Meter>,
) -> Result<(), JobError> {
    if source.manifest.method != Method::Logical {
        return Err(JobError::Configuration("a physical backup has no dumps".to_owned()));
    }
    meter.step("loading databases");
    meter.expect(source.manifest.data_bytes);
    for stream in &source.manifest.streams {
        match (stream.content, stream.database.as_deref()) {
            (Content::Globals, _) => load_globals(source, stream, server, meter).await?,
            (Content::Database, Some(name)) => {
                load_database(source, stream, name, server, programs, meter).await?;
            }
            _ => {
                let what = format!("{} is not for PostgreSQL", stream.packed.name);
                return Err(JobError::Configuration(what));
            }
        }
    }
    Ok(())
}

/// Users and grants, statement by statement, without those that the new service has already.
async fn load_globals(
    source: &Source,
    stream: &Stream,
    server: &Server,
    meter: &Arc<Meter>,
) -> Result<(), JobError> {
    let read = |reader: &mut dyn Read| {
        let mut text = String::new();
        reader.take(LONGEST_GLOBALS).read_to_string(&mut text).map(|_| text)
    };
    let text = source.unpack(stream, meter, read).await?;
    let client = server.connect(ALWAYS_THERE).await?;
    let rows = client.query("select quote_ident(rolname) from pg_roles", &[]).await;
    let there: BTreeSet<String> =
        rows.map_err(|error| failed(&error))?.iter().map(|row| row.get(0)).collect();
    let sql = wanted_globals(&text, &there);
    client.batch_execute(&sql).await.map_err(|error| failed(&error))
}

/// `pg_dumpall` writes a statement in a line. Names of users may hold anything but a line end: one with a line
/// end is in quotes and leaves a line that begins otherwise, which is kept.
fn wanted_globals(text: &str, there: &BTreeSet<String>) -> String {
    let wanted = text.lines().filter(|line| {
        if let Some(role) = line.strip_prefix("CREATE ROLE ") {
            return !there.contains(role.trim_end_matches(';'));
        }
        let altered = line.strip_prefix("ALTER ROLE ").unwrap_or_default();
        !altered.starts_with(OURS) && !line.starts_with('\\')
    });
    wanted.flat_map(|line| [line, "\n"]).collect()
}

fn failed(error: &tokio_postgres::Error) -> JobError {
    JobError::engine("load_failed", format!("the server refuses what the backup holds: {error}"))
}

async fn load_database(
    source: &Source,
    stream: &Stream,
    name: &str,
    server: &Server,
    programs: &Programs,
    meter: &Arc<Meter>,
) -> Result<(), JobError> {
    let args = arguments(name, &server.conninfo(ALWAYS_THERE));
    let (mut stdin, running) = programs.write_to("pg_restore", &args)?;
    let (to, mut from) = mpsc::channel::<Vec<u8>>(BLOCKS);
    let sink = move |reader: &mut dyn Read| {
        io::copy(reader, &mut io::BufWriter::with_capacity(256 << 10, Blocks(to)))
    };
    let feeding = async {
        while let Some(block) = from.recv().await {
            if stdin.write_all(&block).await.is_err() {
                // It has ended early, and says itself why.
                break;
            }
        }
        drop(stdin);
        drop(from);
    };
    let (unpacked, ()) = tokio::join!(source.unpack(stream, meter, sink), feeding);
    // Its own words are worth more than that it would not read on; but damage is worth most.
    match (unpacked, running.end().await) {
        (Err(error @ JobError::Pack(crate::pack::PackError::Sink(_))), Ok(_)) => Err(error),
        (Err(JobError::Pack(crate::pack::PackError::Sink(_))) | Ok(_), Err(error)) => Err(error),
        (Err(error), _) => Err(error),
        (Ok(_), Ok(_)) => Ok(()),
    }
}

/// A database is made anew with its encoding and locale.
fn arguments(name: &str, conninfo: &str) -> Vec<String> {
    let mut args = vec!["--exit-on-error", "-w"];
    if name != ALWAYS_THERE {
        args.extend(["--create", "--clean", "--if-exists"]);
    }
    args.extend(["-d", conninfo]);
    args.into_iter().map(str::to_owned).collect()
}

struct Blocks(mpsc::Sender<Vec<u8>>);

impl Write for Blocks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(bytes.to_vec());
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_that_are_there_are_not_made_again() {
        let text = "-- Roles\n\nCREATE ROLE app;\nALTER ROLE app WITH NOSUPERUSER LOGIN;\nCREATE ROLE culvert_admin;\n\
             ALTER ROLE culvert_admin WITH SUPERUSER;\nCREATE ROLE \"my role\";\nALTER ROLE \"my role\" WITH LOGIN;\n\
             GRANT app TO \"my role\";\n\\unrestrict x\n";
        let there = ["app", "culvert_admin"].map(str::to_owned).into();
        assert_eq!(
            wanted_globals(text, &there),
            "-- Roles\n\nALTER ROLE app WITH NOSUPERUSER LOGIN;\nCREATE ROLE \"my role\";\n\
             ALTER ROLE \"my role\" WITH LOGIN;\nGRANT app TO \"my role\";\n"
        );
    }
}
