//! Valkey, as the runner drives it: a thin driver behind the same trait as PostgreSQL.
//!
//! What is general (who is primary, processes, probes) is not here. What the engine has not, this driver makes of what
//! it has: an identity of the data and an epoch travel with the data in a key ([`record`]), since offsets alone do not
//! tell which of two members is further; a replica that has no primary to follow follows nobody, which still refuses
//! writes ([`settings`]); a backup is the snapshot that a new replica would get ([`wire`]), and a restore puts it
//! where the append-only file begins ([`fill`]).
//!
//! The append-only file is always on. Without it a primary that crashes comes back empty, and its replicas would copy
//! the emptiness: the classic way to lose everything.
//!
//! Mistakes a newcomer could make:
//! - to turn the append-only file on with a snapshot in `dump.rdb`: the engine then starts empty. The snapshot has to
//!   be the *base* of the append-only file;
//! - to reload users from the file: that cuts the connections of all whose rules changed. `ACL SETUSER` does not;
//! - to say an error with its command: `AUTH` and `CONFIG SET masterauth` hold passwords.

mod conf;
mod fill;
mod info;
pub(crate) mod link;
mod live;
mod record;
mod samples;
mod settings;
mod users;
pub(crate) mod wire;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use culvert_resources::{WhoCanFix, Why};
use redis::cmd;
use rustix::process::Signal;

use crate::engine::{
    Data, Engine, EngineError, Launch, Peer, Position, Probed, Role, Sample, Situation, Standby,
};
use crate::files;
pub(crate) use info::Info;
use link::Link;
use record::{Note, Record};
pub(crate) use users::REPLICATION;

/// How long a replica may take to become primary; it has nothing to do but to stop following.
const PROMOTION: Duration = Duration::from_secs(10);
/// Time between two looks at it.
const LOOK: Duration = Duration::from_millis(50);

/// The driver.
#[derive(Debug, Clone, Copy, Default)]
pub struct Valkey;

#[async_trait]
impl Engine for Valkey {
    async fn inspect(&self, now: &Situation) -> Result<Data, EngineError> {
        let data = now.folders.data();
        if let Some(note) = Note::read(&data)? {
            let position = note.position();
            return Ok(Data::Whole { identity: note.identity, led: note.led, position });
        }
        let empty = match std::fs::read_dir(&data) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(EngineError::file("look at the data", error)),
        };
        Ok(if empty { Data::Empty } else { Data::Unfinished })
    }

    async fn initialise(&self, now: &Situation) -> Result<(), EngineError> {
        let data = now.folders.data();
        clear(now)?;
        if let Some(source) = &now.config.source {
            fill::fill(now, source).await?;
        }
        let identity = uuid::Uuid::new_v4().simple().to_string();
        Note { identity, led: false, epoch: 0, offset: 0 }.write(&data)
    }

    async fn join(&self, now: &Situation, primary: &Peer) -> Result<(), EngineError> {
        let mut link = link::monitor_of(now, primary).await?;
        let record = live::record(&mut link).await?;
        let record =
            record.ok_or_else(|| EngineError::refused("read the primary's record", "there is none yet"))?;
        let data = now.folders.data();
        // The engine itself asks for what it lacks, or for all. What belongs to other data must not be there before.
        let known = Note::read(&data)?.is_some_and(|note| note.identity == record.identity);
        if !known {
            clear(now)?;
        }
        Note { identity: record.identity, led: false, epoch: 0, offset: 0 }.write(&data)
    }

    async fn configure(&self, now: &Situation, role: &Role) -> Result<bool, EngineError> {
        files::private_folder(&now.folders.run)
            .map_err(|error| EngineError::file("make the run folder", error))?;
        let users = users::file(&users::users(now, &link::local_password(now)?));
        let settings = conf::write(&settings::directives(now, role));
        let written = |path: PathBuf, text: &str| {
            let named = format!("write {}", path.display());
            files::update(&path, text.as_bytes()).map_err(|error| EngineError::file(named, error))
        };
        let changed = written(settings::users_path(&now.folders), &users)?;
        Ok(written(settings::conf_path(&now.folders), &settings)? || changed)
    }

    fn launch(&self, now: &Situation) -> Result<Launch, EngineError> {
        let name = PathBuf::from("valkey-server");
        Ok(Launch {
            program: now.folders.engine_bin.as_ref().map_or(name.clone(), |folder| folder.join(name)),
            args: vec![settings::conf_path(&now.folders).display().to_string()],
            env: Vec::new(),
            stop: Signal::TERM,
            abort: Signal::KILL,
        })
    }

    async fn reload(&self, now: &Situation) -> Result<(), EngineError> {
        let mut link = link::local(now).await?;
        live::set_users(&mut link, &users::users(now, &link::local_password(now)?)).await?;
        live::apply(&mut link, &live::written(&now.folders)?).await
    }

    async fn promote(&self, now: &Situation) -> Result<(), EngineError> {
        let mut link = link::local(now).await?;
        let mut command = cmd("REPLICAOF");
        link.ask::<()>("stop following", command.arg("NO").arg("ONE")).await?;
        let promoted = async {
            while !live::info(&mut link).await?.is_primary() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        let late = |_| EngineError::Late { what: "become primary".to_owned(), limit: PROMOTION };
        tokio::time::timeout(PROMOTION, promoted).await.map_err(late)??;
        // What is applied next is the file, which must not make it follow again.
        self.configure(now, &Role::Primary).await?;
        begin(now, &mut link).await
    }

    async fn settle(&self, now: &Situation) -> Result<(), EngineError> {
        let mut link = link::local(now).await?;
        live::set_users(&mut link, &users::users(now, &link::local_password(now)?)).await?;
        live::apply(&mut link, &live::written(&now.folders)?).await?;
        begin(now, &mut link).await
    }

    async fn rotate(&self, now: &Situation) -> Result<(), EngineError> {
        self.reload(now).await
    }

    async fn probe(&self, now: &Situation) -> Result<Probed, EngineError> {
        let mut monitor = link::monitor(now).await?;
        let info = live::info(&mut monitor).await?;
        if info.loading() {
            return Err(EngineError::refused("log in", "the engine still reads its files"));
        }
        let record = live::record(&mut monitor).await?;
        let (note, record) = current(now, record)?;
        if info.is_primary() {
            live::set_record(&mut monitor, &record).await.map_err(stuck)?;
        }
        let position = note.position_now(record.epoch, info.offset());
        let fresh = Note { epoch: position.epoch, offset: position.offset, ..note.clone() };
        if fresh != note {
            fresh.write(&now.folders.data())?;
        }
        let mut local = link::local(now).await?;
        let pending_restart = live::pending(&mut local, &live::written(&now.folders)?).await?;
        Ok(probed(&info, position, pending_restart))
    }

    async fn metrics(&self, now: &Situation) -> Result<Vec<Sample>, EngineError> {
        let mut link = link::monitor(now).await?;
        Ok(samples::samples(&live::info(&mut link).await?))
    }

    async fn standbys(&self, now: &Situation) -> Result<Vec<Standby>, EngineError> {
        let mut link = link::monitor(now).await?;
        let info = live::info(&mut link).await?;
        let epoch = live::record(&mut link).await?.map_or(0, |record| record.epoch);
        let standby = |attached: info::Attached| Standby {
            // It announces its name in the headless Service, which begins with the name of its pod.
            pod: attached.host.split('.').next().unwrap_or_default().to_owned(),
            streaming: attached.online,
            flushed: Position { epoch, offset: attached.offset },
        };
        Ok(info.replicas().into_iter().map(standby).collect())
    }
}

/// Removes what is in the folder of the data; the note first, so that half of it does not pass for data.
fn clear(now: &Situation) -> Result<(), EngineError> {
    let data = now.folders.data();
    let failed = |error| EngineError::file("clear the folder of the data", error);
    Note::remove(&data)?;
    files::remove_folder(&data).map_err(failed)?;
    files::private_folder(&data).map_err(failed)
}

/// Notes that this instance takes writes, and begins an epoch if another process wrote the data before.
async fn begin(now: &Situation, link: &mut Link) -> Result<(), EngineError> {
    let info = live::info(link).await?;
    let (note, found) = current(now, live::record(link).await?)?;
    let record = found.begun(info.text("run_id"));
    Note {
        led: true,
        epoch: record.epoch,
        offset: note.position_now(record.epoch, info.offset()).offset,
        ..note
    }
    .write(&now.folders.data())?;
    live::set_record(link, &record).await.map_err(stuck)
}

/// The note, and the record that is in the data; the note's words where there is no record (someone emptied all
/// databases), or that of other data (which a tenant can write, and nobody else).
fn current(now: &Situation, found: Option<Record>) -> Result<(Note, Record), EngineError> {
    let note = Note::read(&now.folders.data())?;
    let note = note.ok_or_else(|| EngineError::refused("read the note of the data", "it is missing"))?;
    let own = found.filter(|record| record.identity == note.identity);
    let record = own.unwrap_or_else(|| Record {
        identity: note.identity.clone(),
        epoch: note.epoch,
        run: String::new(),
    });
    Ok((note, record))
}

fn probed(info: &Info, position: Position, pending_restart: Vec<String>) -> Probed {
    Probed {
        version: info.version().to_owned(),
        primary: info.is_primary(),
        position,
        streaming: info.streaming(),
        lag_bytes: if info.is_primary() { None } else { info.lag() },
        data_bytes: info.number("used_memory").and_then(|bytes| i64::try_from(bytes).ok()),
        pending_restart,
        archived_until: None,
        archive_problem: None,
        problem: None,
    }
}

/// A refused write that only a person mends, with the way out.
fn stuck(error: EngineError) -> EngineError {
    let EngineError::Refused { why, .. } = &error else { return error };
    let (code, message, next) = if why.starts_with("OOM") {
        (
            "memory_full",
            "the engine's memory is full, and it refuses writes",
            "Raise spec.resources.memory, delete keys, or set maxmemory-policy to one that drops keys.",
        )
    } else if why.starts_with("NOREPLICAS") {
        (
            "too_few_replicas",
            "the engine refuses writes: too few replicas are near",
            "Wait for the replicas, or lower min-replicas-to-write.",
        )
    } else if why.starts_with("MISCONF") {
        ("disk_full", "the engine cannot write to its volume, and refuses writes", "Raise spec.storage.size.")
    } else {
        return error;
    };
    EngineError::Stuck(Box::new(Why {
        code: code.to_owned(),
        message: message.to_owned(),
        who: WhoCanFix::Developer,
        next: next.to_owned(),
        object: None,
    }))
}

#[cfg(test)]
mod tests;
