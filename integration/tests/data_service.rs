//! Story: a data service from its first day to its return, on a real node and with kubectl alone. What changes restarts
//! only what it must, what somebody breaks by hand is mended, and what was deleted can be had again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use culvert_integration::data_plane::{DataPlane, GROWING, Service};
use culvert_integration::wait::until;
use culvert_resources::{DataService, Phase};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use serde_json::{Value, json};

/// For what takes a pod, on a machine with two cores on which other stories run.
const STEP: Duration = Duration::from_secs(180);

/// The instances by name, with their uids.
async fn instances(plane: &DataPlane, service: &Service<'_>) -> anyhow::Result<BTreeMap<String, String>> {
    let of_it = ListParams::default().labels(&format!("data.culvert.dev/database={}", service.name()));
    let pods = plane.objects::<Pod>(service.namespace())?.list(&of_it).await?.items;
    let named = pods.into_iter().map(|pod| Some((pod.metadata.name?, pod.metadata.uid?)));
    named.collect::<Option<_>>().context("a pod without a name")
}

async fn claims(plane: &DataPlane, namespace: &str) -> anyhow::Result<Vec<PersistentVolumeClaim>> {
    let claims = plane.objects::<PersistentVolumeClaim>(namespace)?;
    Ok(claims.list(&ListParams::default()).await?.items)
}

/// Waits until so many instances run, and the service is ready.
async fn scaled(plane: &DataPlane, service: &Service<'_>, count: usize) -> anyhow::Result<()> {
    let there = until(STEP, || async {
        let now = instances(plane, service).await?;
        ensure!(now.len() == count, "{now:?}");
        Ok(())
    });
    plane.explained(there.await, service.namespace()).await?;
    service.ready().await.map(drop)
}

/// Grows the volumes in the place of a driver until each has what the service asks for.
async fn grown(plane: &DataPlane, service: &Service<'_>, size: &str) -> anyhow::Result<()> {
    let grown = until(STEP, || async {
        plane.grow_volumes(service.namespace()).await?;
        for claim in claims(plane, service.namespace()).await? {
            let has = claim.status.and_then(|status| status.capacity?.remove("storage"));
            ensure!(has.as_ref().is_some_and(|has| has.0 == size), "{:?} has {has:?}", claim.metadata.name);
        }
        Ok(())
    });
    plane.explained(grown.await, service.namespace()).await
}

async fn rows(service: &Service<'_>, at: &str) -> anyhow::Result<Vec<String>> {
    Ok(service.sql_at(at, "select what from kept order by what").await?.lines().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_scaled_grown_broken_stopped_deleted_and_comes_back() -> anyhow::Result<()> {
    let plane = DataPlane::shared().await?;
    let namespace = plane.cluster().namespace("whole-life").await?;
    let n = namespace.name();
    let spec = |size: &str| -> Value {
        json!({"engine": "postgresql", "version": "17", "resources": {"cpu": "50m", "memory": "256Mi"},
            "storage": {"size": size, "class": GROWING}})
    };
    let orders = plane.create(n, "orders", &spec("512Mi")).await?;
    orders.ready().await?;
    orders.sql("create table kept (what text); insert into kept values ('first')").await?;
    let first = instances(plane, &orders).await?;

    // More instances and larger volumes restart nothing that runs.
    orders.change(&json!({"topology": {"replicas": 2}})).await?;
    scaled(plane, &orders, 2).await?;
    let copied = until(STEP, || async {
        ensure!(rows(&orders, "orders-ro").await? == ["first"]);
        Ok(())
    });
    plane.explained(copied.await, n).await?;
    orders.change(&json!({"storage": {"size": "768Mi"}})).await?;
    grown(plane, &orders, "768Mi").await?;
    orders.ready().await?;
    let two = instances(plane, &orders).await?;
    ensure!(first.iter().all(|(name, uid)| two.get(name) == Some(uid)), "{first:?} became {two:?}");

    // What somebody deletes by hand is there again, and what they change is put right.
    for (deleted, how) in [
        ("secret/orders-owner", "--wait=true"),
        ("service/orders", "--wait=true"),
        ("statefulset/orders", "--cascade=orphan"),
    ] {
        plane.cluster().get(&["-n", n, "delete", deleted, how]).await?;
    }
    let mended = until(STEP, || async {
        orders.sql("insert into kept values ('second')").await?;
        plane.cluster().get(&["-n", n, "get", "statefulset", "orders"]).await.map(drop)
    });
    plane.explained(mended.await, n).await?;
    plane.cluster().get(&["-n", n, "scale", "statefulset/orders", "--replicas=0"]).await?;
    scaled(plane, &orders, 2).await?;
    let seen = until(STEP, || async {
        ensure!(rows(&orders, "orders").await?.contains(&"second".to_owned()));
        Ok(())
    });
    plane.explained(seen.await, n).await?;

    orders.change(&json!({"topology": {"replicas": 1}})).await?;
    scaled(plane, &orders, 1).await?;
    orders.sql("insert into kept values ('third')").await?;

    orders.change(&json!({"stopped": true})).await?;
    let stopped = |service: &DataService| {
        let phase = service.status.as_ref().and_then(|status| status.phase);
        ensure!(phase == Some(Phase::Stopped), "{phase:?}");
        Ok(())
    };
    orders.until(STEP, stopped).await?;
    ensure!(instances(plane, &orders).await?.is_empty(), "it was stopped, and runs");
    orders.change(&json!({"stopped": false})).await?;
    orders.ready().await?;
    ensure!(rows(&orders, "orders").await?.contains(&"third".to_owned()), "the last row is lost");

    // Deleted: the volume stays, and a service of the same name has its data.
    orders.delete().await?;
    ensure!(!claims(plane, n).await?.is_empty(), "the volumes went with the service");
    let again = plane.create(n, "orders", &spec("768Mi")).await?;
    again.ready().await?;
    ensure!(rows(&again, "orders").await?.contains(&"third".to_owned()), "it came back without its data");
    Ok(())
}
