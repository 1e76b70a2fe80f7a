//! Every database of a server by `pg_dump`, and what belongs to none by `pg_dumpall`.

use async_trait::async_trait;
use tokio_postgres::Client;

use super::physical::{ABOUT, NOW, major, not_begun, timestamp};
use super::program::Programs;
use super::server::{Server, query_failed};
use crate::backup::dump::{About, Dump, DumpStream, Dumped};
use crate::backup::error::JobError;
use crate::backup::manifest::Content;

const DATABASES: &str =
    "select datname from pg_database where datallowconn and not datistemplate order by datname";

/// A dump of all databases.
pub struct Logical {
    server: Server,
    programs: Option<Programs>,
    session: Option<Session>,
}

struct Session {
    client: Client,
    programs: Programs,
    todo: std::vec::IntoIter<Todo>,
}

enum Todo {
    Globals,
    Database(usize, String),
}

impl Logical {
    /// `server` logs in as a superuser.
    #[must_use]
    pub fn new(server: Server, programs: Option<Programs>) -> Self {
        Self { server, programs, session: None }
    }
}

#[async_trait]
impl Dump for Logical {
    async fn begin(&mut self) -> Result<About, JobError> {
        let client = self.server.connect("postgres").await?;
        let about = client.query_one(ABOUT, &[]).await.map_err(|error| query_failed(&error))?;
        let (version, bytes): (String, i64) = (about.get(0), about.get(1));
        let rows = client.query(DATABASES, &[]).await.map_err(|error| query_failed(&error))?;
        let databases = rows.iter().enumerate().map(|(number, row)| Todo::Database(number, row.get(0)));
        let todo = std::iter::once(Todo::Globals).chain(databases).collect::<Vec<_>>().into_iter();
        let programs = match &self.programs {
            Some(programs) => programs.clone(),
            None => Programs::find(major(&version))?,
        };
        self.session = Some(Session { client, programs, todo });
        Ok(About { version, data_bytes: Some(bytes.unsigned_abs()) })
    }

    async fn next(&mut self) -> Result<Option<DumpStream>, JobError> {
        let session = self.session.as_mut().ok_or_else(not_begun)?;
        let Some(todo) = session.todo.next() else { return Ok(None) };
        let (program, args) = match &todo {
            Todo::Globals => ("pg_dumpall", globals(&self.server.conninfo("postgres"))),
            Todo::Database(_, name) => ("pg_dump", database(&self.server.conninfo(name))),
        };
        let (stdout, running) = session.programs.read_from(program, &args)?;
        let (name, format, content, database) = match todo {
            Todo::Globals => ("globals".to_owned(), "sql", Content::Globals, None),
            Todo::Database(number, name) => {
                (format!("database-{number:04}"), "dump", Content::Database, Some(name))
            }
        };
        Ok(Some(DumpStream {
            name,
            format,
            content,
            database,
            reader: Box::pin(stdout),
            ended: running.ended(),
        }))
    }

    async fn finish(&mut self) -> Result<Dumped, JobError> {
        let session = self.session.take().ok_or_else(not_begun)?;
        let now = session.client.query_one(NOW, &[]).await.map_err(|error| query_failed(&error))?;
        Ok(Dumped { log: None, at: timestamp(now.get(0))? })
    }
}

fn globals(conninfo: &str) -> Vec<String> {
    ["--globals-only", "--no-role-passwords", "--no-tablespaces", "-w", "-d", conninfo]
        .map(str::to_owned)
        .to_vec()
}

/// Not compressed: we do that. Without our own schema, which a new service makes anew.
fn database(conninfo: &str) -> Vec<String> {
    ["-F", "custom", "-Z", "0", "-w", "--exclude-schema=culvert", "-d", conninfo].map(str::to_owned).to_vec()
}
