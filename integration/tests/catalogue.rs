//! The catalogue of engines beside the engines themselves: every parameter is there, is of that kind, costs what the
//! catalogue says, and takes the values that it promises.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use culvert_engines::{Apply, Engine, Kind, Parameter, catalogue};
use culvert_integration::engines::{self, EngineImage};
use culvert_integration::process;
use culvert_integration::wait::until;
use culvert_resources::DataServiceSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Parameters that a person may set, and that the major version has.
fn settable(
    engine: &'static Engine,
    major: u32,
) -> impl Iterator<Item = (&'static String, &'static Parameter)> {
    let there = move |parameter: &Parameter| parameter.since.is_none_or(|since| since <= major);
    engine.parameters.iter().filter(move |(_, parameter)| parameter.apply != Apply::Fixed && there(parameter))
}

/// Values at the ends of what is promised.
fn promised(parameter: &Parameter) -> impl Iterator<Item = &String> {
    let ends = [&parameter.min, &parameter.max, &parameter.default, &parameter.preset].into_iter().flatten();
    ends.chain(&parameter.special).chain(&parameter.values)
}

fn spec(engine: &Engine, version: &str, memory: &str, storage: &str) -> DataServiceSpec {
    let mut spec =
        DataServiceSpec { engine: engine.name.clone(), version: version.to_owned(), ..Default::default() };
    spec.resources.memory = Quantity(memory.to_owned());
    spec.storage.size = Quantity(storage.to_owned());
    spec
}

struct Postgres {
    _folder: tempfile::TempDir,
    program: PathBuf,
    data: PathBuf,
}

impl Postgres {
    async fn new(image: &EngineImage) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let program = image.programs(folder.path()).await?.join("postgres");
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        // Enough of a configuration to be looked at, and none of a database.
        std::fs::write(data.join("postgresql.conf"), "")?;
        std::fs::write(data.join("PG_VERSION"), "0\n")?;
        process::run(as_nobody("chown", &["-R", "nobody", "."], &data, true)).await?;
        Ok(Self { _folder: folder, program, data })
    }

    async fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        let program = self.program.to_str().context("a path that is not text")?;
        process::run(as_nobody(program, args, &self.data, false)).await
    }

    /// The value of a parameter with these set, as a server that starts would have it.
    async fn with(&self, set: &BTreeMap<String, String>, asked: &str) -> anyhow::Result<String> {
        let data = self.data.to_str().context("a path that is not text")?.to_owned();
        let mut args = vec!["-D".to_owned(), data, "-C".to_owned(), asked.to_owned()];
        args.extend(set.iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.ask(&args).await
    }
}

/// PostgreSQL does not run as root.
fn as_nobody(program: &str, args: &[&str], folder: &Path, as_root: bool) -> Command {
    let mut command = Command::new(if as_root { program } else { "setpriv" });
    if !as_root {
        command.args(["--reuid=nobody", "--clear-groups", program]);
    }
    command.args(args).current_dir(folder);
    command
}

/// Name, context, kind, as `--describe-config` tells them.
fn described(text: &str) -> BTreeMap<String, (String, String)> {
    let line = |line: &str| {
        let mut fields = line.split('\t');
        let (name, context, _group, kind) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some((name.to_owned(), (context.to_owned(), kind.to_owned())))
    };
    text.lines().filter_map(line).collect()
}

fn kind_of(parameter: &Parameter) -> &'static [&'static str] {
    match parameter.kind {
        Kind::Boolean => &["BOOLEAN"],
        Kind::Integer | Kind::Memory => &["INTEGER"],
        Kind::Duration => &["INTEGER", "REAL"],
        Kind::Real => &["REAL"],
        Kind::Enum => &["ENUM"],
        Kind::List | Kind::String => &["STRING"],
    }
}

async fn postgresql(major: &str) -> anyhow::Result<()> {
    let engine = catalogue().engine("postgresql").context("no postgresql")?;
    let image = *engines::of_major("postgresql", major).await?.last().context("no image")?;
    let server = Postgres::new(image).await?;
    let known = described(&server.ask(&["--describe-config"]).await?);
    let mut wrong = Vec::new();
    // Parameters of libraries are not the server's.
    for (name, parameter) in settable(engine, major.parse()?).filter(|(name, _)| !name.contains('.')) {
        let Some((context, kind)) = known.get(name) else {
            wrong.push(format!("there is no {name}"));
            continue;
        };
        if (context == "postmaster") != (parameter.apply == Apply::Restart) {
            wrong.push(format!("{name} is {context}"));
        }
        if !kind_of(parameter).contains(&kind.as_str()) {
            wrong.push(format!("{name} is {kind}"));
        }
        for value in promised(parameter).filter(|value| !value.is_empty()) {
            let taken = server.with(&[(name.clone(), value.clone())].into(), name).await;
            wrong.extend(taken.err().map(|error| format!("{name} = {value}: {error:#}")));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (memory, storage) in [("128Mi", "512Mi"), ("4Gi", "100Gi"), ("256Gi", "8Ti")] {
        let set = engine.resolve_parameters(&spec(engine, major, memory, storage));
        server.with(&set, "shared_buffers").await.with_context(|| format!("{memory} of memory"))?;
    }
    Ok(())
}

#[tokio::test]
async fn postgresql_15_is_as_the_catalogue_says() -> anyhow::Result<()> {
    postgresql("15").await
}

#[tokio::test]
async fn postgresql_17_is_as_the_catalogue_says() -> anyhow::Result<()> {
    postgresql("17").await
}

#[tokio::test]
async fn valkey_is_as_the_catalogue_says() -> anyhow::Result<()> {
    let engine = catalogue().engine("valkey").context("no valkey")?;
    let image = *engines::of_major("valkey", "8").await?.last().context("no image")?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("socket");
    let socket = socket.to_str().context("a path that is not text")?;
    let mut command =
        tokio::process::Command::new(image.programs(folder.path()).await?.join("valkey-server"));
    command.args(["--port", "0", "--unixsocket", socket, "--dir", "."]).current_dir(folder.path());
    let _server = command.stdout(std::process::Stdio::null()).kill_on_drop(true).spawn()?;
    let client = redis::Client::open(format!("redis+unix://{socket}"))?;
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let mut client = until(Duration::from_secs(20), || async {
        client.get_multiplexed_async_connection_with_config(&patient).await.context("valkey is not up")
    })
    .await?;
    for (name, parameter) in settable(engine, 8) {
        let found: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut client).await?;
        let value = found.get(1).with_context(|| format!("there is no {name}"))?;
        ensure!(
            engine.same_value(name, Some(value), parameter.default.as_ref()),
            "{name} is {value} by itself"
        );
        for wanted in promised(parameter) {
            let mut set = redis::cmd("CONFIG");
            let answer = set.arg("SET").arg(name).arg(wanted).query_async::<()>(&mut client).await;
            let immutable = answer.as_ref().is_err_and(|error| error.to_string().contains("immutable"));
            ensure!(immutable == (parameter.apply == Apply::Restart), "{name} = {wanted}: {answer:?}");
            ensure!(immutable || answer.is_ok(), "{name} = {wanted}: {answer:?}");
        }
    }
    Ok(())
}
