//! Backup targets: buckets and shares, and the credentials that are never shown again.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::follow::{Waiting, start};
use super::view::{Extent, Kind, Noun, column, plain, text_at, wide};
use crate::failure::{Exit, Failure};
use crate::files;
use crate::invocation::Invocation;
use crate::output::{Cell, Table, Tone, Tree};

pub(crate) const NOUN: Noun = Noun {
    one: "backup target",
    list: "culvert backup-target list",
    collection: "backup-targets",
    columns: &[
        column("NAME", "name", Kind::Text),
        column("BUCKET", "spec.s3.bucket", Kind::Text),
        column("CREDENTIALS", "credential_generation", Kind::Text),
        column("CREATED", "created_at", Kind::Time),
        wide("ENDPOINT", "spec.s3.endpoint", Kind::Text),
        wide("CONTAINER", "spec.azure.container", Kind::Text),
        wide("GCS BUCKET", "spec.gcs.bucket", Kind::Text),
        wide("CLAIM", "spec.fileShare.claim", Kind::Text),
        wide("PREFIX", "spec.prefix", Kind::Text),
        wide("ID", "id", Kind::Text),
    ],
    first: "culvert backup-target create NAME --s3-bucket BUCKET --credentials-file FILE",
};

/// A credentials file is a few lines, or a service account.
const CREDENTIALS_LIMIT: u64 = 64 << 10;

/// Backup targets: where backups go
#[derive(Subcommand)]
#[command(after_help = "Examples:
  culvert backup-target create vault --s3-bucket backups --credentials-file keys.env
  culvert backup-target check vault
  culvert backup-target credentials vault --credentials-file new-keys.env")]
pub(crate) enum BackupTarget {
    Create(Create),
    List(List),
    Get(Which),
    Update(Update),
    Credentials(Credentials),
    Check(Check),
    Delete(Delete),
}

/// What a target is
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Flags {
    /// Bucket of S3, or of what speaks its protocol
    #[arg(long, value_name = "BUCKET")]
    s3_bucket: Option<String>,
    /// Region of the bucket
    #[arg(long, requires = "s3_bucket", value_name = "REGION")]
    s3_region: Option<String>,
    /// The bucket stands in the path, not in the host name
    #[arg(long, requires = "s3_bucket")]
    s3_path_style: bool,
    /// Storage account of Azure
    #[arg(long, requires = "azure_container", value_name = "ACCOUNT")]
    azure_account: Option<String>,
    /// Container of Azure Blob Storage
    #[arg(long, requires = "azure_account", value_name = "CONTAINER")]
    azure_container: Option<String>,
    /// Bucket of Google Cloud Storage
    #[arg(long, value_name = "BUCKET")]
    gcs_bucket: Option<String>,
    /// A claim in the cluster, of a volume that several pods can mount
    #[arg(long, value_name = "CLAIM")]
    share_claim: Option<String>,
    /// Another endpoint than the provider's own, as https://host:port; the cluster dials it, not the controller
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Allow an endpoint with http://
    #[arg(long, requires = "endpoint")]
    allow_http: bool,
    /// Folder inside the bucket
    #[arg(long)]
    prefix: Option<String>,
    /// PEM certificates to trust besides the public ones
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Proxy on the way there, as http://host:port
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

/// Create a backup target
#[derive(Args)]
#[command(
    after_help = "The credentials file has lines KEY=VALUE; - is standard input. Keys: access-key-id and secret-access-key for S3,
account-key or sas-token for Azure; for Google it is the service account's JSON itself.

Examples:
  culvert backup-target create vault --s3-bucket backups --credentials-file keys.env
  culvert backup-target create minio --s3-bucket b --endpoint https://minio.example:9000 --s3-path-style --ca-file ca.pem --credentials-file -
  culvert backup-target create nfs --share-claim backups"
)]
pub(crate) struct Create {
    /// The name: lower-case letters, digits and dashes, at most 40
    name: String,
    #[command(flatten)]
    flags: Flags,
    /// File with the credentials, or - for standard input
    #[arg(long, value_name = "FILE")]
    credentials_file: Option<PathBuf>,
}

/// List the backup targets
#[derive(Args)]
#[command(
    visible_alias = "ls",
    after_help = "Examples:\n  culvert backup-target list\n  culvert backup-target list -o wide"
)]
pub(crate) struct List {
    #[command(flatten)]
    extent: Extent,
}

/// Show a backup target, and what each cluster says of it
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-target get vault\n  culvert backup-target get vault -o yaml"
)]
pub(crate) struct Which {
    /// Name or id of the target
    target: String,
}

/// Change a backup target
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-target update vault --prefix culvert\n  culvert backup-target update vault --proxy http://proxy.example:3128"
)]
pub(crate) struct Update {
    /// Name or id of the target
    target: String,
    #[command(flatten)]
    flags: Flags,
}

/// Give a backup target new credentials; every cluster gets them sealed to its agent
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-target credentials vault --credentials-file keys.env\n  culvert backup-target credentials vault --credentials-file -"
)]
pub(crate) struct Credentials {
    /// Name or id of the target
    target: String,
    /// File with the credentials, or - for standard input
    #[arg(long, value_name = "FILE")]
    credentials_file: PathBuf,
}

/// Have every cluster that uses the target write, read, list and delete there now
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-target check vault\n  culvert backup-target check vault --no-wait"
)]
pub(crate) struct Check {
    /// Name or id of the target
    target: String,
    #[command(flatten)]
    waiting: Waiting,
}

/// Delete a backup target; credentials are wiped everywhere, what lies in it stays
#[derive(Args)]
#[command(
    after_help = "Examples:\n  culvert backup-target delete vault\n  culvert backup-target delete vault --yes"
)]
pub(crate) struct Delete {
    /// Name or id of the target
    target: String,
    #[command(flatten)]
    waiting: Waiting,
}

pub(crate) async fn run(run: &Invocation, command: BackupTarget) -> Result<(), Failure> {
    match command {
        BackupTarget::Create(args) => create(run, &args).await,
        BackupTarget::List(args) => NOUN.list(run, &[], args.extent).await,
        BackupTarget::Get(args) => get(run, &args.target).await,
        BackupTarget::Update(args) => update(run, &args).await,
        BackupTarget::Credentials(args) => credentials(run, &args).await,
        BackupTarget::Check(args) => check(run, &args).await,
        BackupTarget::Delete(args) => delete(run, &args).await,
    }
}

impl Flags {
    fn spec(&self) -> Result<Map<String, Value>, Failure> {
        let mut spec = Map::new();
        let endpoint = |mut of: Map<String, Value>| {
            if let Some(endpoint) = &self.endpoint {
                of.insert("endpoint".to_owned(), json!(endpoint));
                of.insert("allowHttp".to_owned(), json!(self.allow_http));
            }
            Value::Object(of)
        };
        if let Some(bucket) = &self.s3_bucket {
            let mut s3 = Map::from_iter([("bucket".to_owned(), json!(bucket))]);
            s3.insert("pathStyle".to_owned(), json!(self.s3_path_style));
            s3.extend(self.s3_region.iter().map(|region| ("region".to_owned(), json!(region))));
            spec.insert("s3".to_owned(), endpoint(s3));
        }
        if let (Some(account), Some(container)) = (&self.azure_account, &self.azure_container) {
            let azure = [("account".to_owned(), json!(account)), ("container".to_owned(), json!(container))];
            spec.insert("azure".to_owned(), endpoint(Map::from_iter(azure)));
        }
        if let Some(bucket) = &self.gcs_bucket {
            spec.insert("gcs".to_owned(), endpoint(Map::from_iter([("bucket".to_owned(), json!(bucket))])));
        }
        if let Some(claim) = &self.share_claim {
            spec.insert("fileShare".to_owned(), json!({ "claim": claim }));
        }
        spec.extend(self.prefix.iter().map(|prefix| ("prefix".to_owned(), json!(prefix))));
        spec.extend(self.proxy.iter().map(|proxy| ("proxy".to_owned(), json!(proxy))));
        if let Some(file) = &self.ca_file {
            spec.insert("caBundle".to_owned(), json!(text_of(file)?));
        }
        Ok(spec)
    }
}

fn text_of(file: &std::path::Path) -> Result<String, Failure> {
    let text =
        files::read_text(file, CREDENTIALS_LIMIT).map_err(|error| Failure::file("read", file, &error))?;
    text.ok_or_else(|| Failure::new(Exit::NotFound, format!("{} is not there", file.display())))
}

/// Reads credentials: lines `KEY=VALUE`, or a service account of Google.
fn read_credentials(file: &std::path::Path) -> Result<Map<String, Value>, Failure> {
    let text = if file.as_os_str() == "-" {
        let bytes = Zeroizing::new(Invocation::stdin(CREDENTIALS_LIMIT)?);
        let unreadable = |_| Failure::new(Exit::Usage, "the credentials are not text");
        Zeroizing::new(std::str::from_utf8(&bytes).map_err(unreadable)?.to_owned())
    } else {
        Zeroizing::new(text_of(file)?)
    };
    parse_credentials(&text)
}

fn parse_credentials(text: &str) -> Result<Map<String, Value>, Failure> {
    if text.trim_start().starts_with('{') {
        return Ok(Map::from_iter([("service-account.json".to_owned(), json!(text))]));
    }
    let mut found = Map::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        if line.trim_start().starts_with('#') {
            continue;
        }
        // The line itself may hold a secret, so only its number is told.
        let (key, value) = line.split_once('=').ok_or_else(|| {
            Failure::new(Exit::Usage, format!("line {} of the credentials is not KEY=VALUE", number + 1))
        })?;
        let key = key.trim().trim_start_matches("export ").to_ascii_lowercase().replace('_', "-");
        let key = key.strip_prefix("aws-").unwrap_or(&key);
        found.insert(key.to_owned(), json!(value.trim().trim_matches('"')));
    }
    if found.is_empty() {
        Err(Failure::new(Exit::Usage, "there are no credentials in the file"))
    } else {
        Ok(found)
    }
}

async fn create(run: &Invocation, args: &Create) -> Result<(), Failure> {
    let spec = args.flags.spec()?;
    let kinds = ["s3", "azure", "gcs", "fileShare"].iter().filter(|kind| spec.contains_key(**kind)).count();
    if kinds != 1 {
        return Err(Failure::new(
            Exit::Usage,
            "say what it is with one of --s3-bucket, --azure-container, --gcs-bucket, --share-claim",
        ));
    }
    let mut body = json!({ "name": args.name, "spec": spec });
    if let (Some(file), Some(body)) = (&args.credentials_file, body.as_object_mut()) {
        body.insert("credentials".to_owned(), Value::Object(read_credentials(file)?));
    }
    let client = run.client().await?;
    let answer = client.send(client.ask(Method::POST, &["backup-targets"]).json(&body)?).await?.tree()?;
    run.out.note(&format!(
        "created; use it with: culvert data-service create NAME --backup-target {}",
        args.name
    ));
    NOUN.one(run, answer.get("backup_target").unwrap_or(&answer))
}

async fn get(run: &Invocation, which: &str) -> Result<(), Failure> {
    let target = NOUN.find(&run.client().await?, which).await?;
    NOUN.one(run, &target)?;
    let placements = target.get("placements").map(Tree::list).unwrap_or_default();
    if run.out.for_people() && !placements.is_empty() {
        run.out.data(&format!("\n{}", run.out.text_of(&table(run, placements))))?;
    }
    Ok(())
}

fn table(run: &Invocation, placements: &[Tree]) -> Table {
    let mut table =
        Table::new(&["CLUSTER", "NAMESPACE", "REACHABLE", "CREDENTIALS", "CHECKED", "WHY"], &["NEXT"]);
    for placement in placements {
        let reachable = placement.get("reachable").map(plain).unwrap_or_default();
        let tone = if reachable == "yes" { Tone::Good } else { Tone::Warning };
        let checked = text_at(placement, "checked_at");
        table.row([
            Cell::new(placement.get("cluster").map(plain).unwrap_or_default()),
            Cell::new(text_at(placement, "namespace")),
            Cell::toned(if reachable.is_empty() { "not yet known" } else { &reachable }, tone),
            Cell::new(placement.get("applied_generation").map(plain).unwrap_or_default()),
            Cell::new(if checked.is_empty() { String::new() } else { run.out.clock.show(checked) }),
            Cell::new(text_at(placement, "why.message")),
            Cell::new(text_at(placement, "why.next")),
        ]);
    }
    table
}

async fn update(run: &Invocation, args: &Update) -> Result<(), Failure> {
    let spec = args.flags.spec()?;
    if spec.is_empty() {
        return Err(Failure::new(Exit::Usage, "nothing to change was given"));
    }
    let client = run.client().await?;
    let target = NOUN.find(&client, &args.target).await?;
    let ask = client
        .ask(Method::PATCH, &["backup-targets", text_at(&target, "id")])
        .json(&json!({ "spec": spec }))?;
    let answer = client.send(ask).await?.tree()?;
    NOUN.one(run, answer.get("backup_target").unwrap_or(&answer))
}

async fn credentials(run: &Invocation, args: &Credentials) -> Result<(), Failure> {
    let credentials = read_credentials(&args.credentials_file)?;
    let client = run.client().await?;
    let target = NOUN.find(&client, &args.target).await?;
    let ask = client.ask(Method::PUT, &["backup-targets", text_at(&target, "id"), "credentials"]);
    client.send(ask.json(&json!({ "credentials": credentials }))?).await?;
    run.out.note(&format!("sent; see which clusters have them: culvert backup-target get {}", args.target));
    Ok(())
}

async fn check(run: &Invocation, args: &Check) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let target = NOUN.find(&client, &args.target).await?;
    let ask = client.ask(Method::POST, &["backup-targets", text_at(&target, "id"), "check"]);
    start(run, ask, &args.waiting).await?;
    get(run, &args.target).await
}

async fn delete(run: &Invocation, args: &Delete) -> Result<(), Failure> {
    let client = run.waiting_client().await?;
    let target = NOUN.find(&client, &args.target).await?;
    let name = text_at(&target, "name");
    let used = target.get("placements").map(Tree::list).unwrap_or_default().len();
    let question = format!(
        "{name} is taken out of {used} clusters, and its credentials are wiped there.\nThe backups that lie in it stay, and can be restored from the bucket."
    );
    run.confirm_name(&question, name).await?;
    start(run, client.ask(Method::DELETE, &["backup-targets", text_at(&target, "id")]), &args.waiting)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_lines_as_everybody_has_them() {
        let text = "# mine\nAWS_ACCESS_KEY_ID=one\nexport AWS_SECRET_ACCESS_KEY=\"two=2\"\n\n";
        let expected = json!({"access-key-id": "one", "secret-access-key": "two=2"});
        assert_eq!(Value::Object(parse_credentials(text).unwrap()), expected);
        let google = parse_credentials("{\"type\":\"service_account\"}").unwrap();
        assert!(google.contains_key("service-account.json"));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_alone() {
        let failure = parse_credentials("a=1\nmy-secret\n").unwrap_err();
        assert!(failure.what.contains("line 2") && !failure.render().contains("my-secret"));
    }

    #[test]
    fn one_kind_becomes_the_spec() {
        let flags = Flags {
            s3_bucket: Some("b".to_owned()),
            endpoint: Some("https://s3.example:9000".to_owned()),
            s3_path_style: true,
            ..Flags::default()
        };
        let expected = json!({"s3": {"bucket": "b", "pathStyle": true, "endpoint": "https://s3.example:9000", "allowHttp": false}});
        assert_eq!(Value::Object(flags.spec().unwrap()), expected);
    }
}
