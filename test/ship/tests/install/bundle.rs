//! The life of an OLM install: the released bundle, the upgrade to this tree's under load, OLM's rotation of the certificate,
//! the deletion of the CSV, a second install that adopts what serves, and the way back to the release.

mod patches;

use std::{env, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, ensure};
use mcp_gateway_e2e::{Load, Site, apply, get, kubectl, kubectl_with, main_job, races, refused, write_dry};
use mcp_gateway_kit::{Image, Kit, eventually};
use serde_json::{Value, json};
use tokio::{runtime::Handle, task::spawn_blocking};

use crate::{
    CLUSTER,
    cluster::{brokers, clear, note, nothing_forbidden, prepare, program},
    olm::{Bundle, NAMESPACE, certificate::Pair, condition},
    schemas,
};
use patches::{
    deployment, flag, other_flags_than_the_release, patches_are_kept, revision, rolled, users_patches,
};

/// How often admission has to answer in a row: connections to both replicas are kept open.
const ASKED: usize = 6;
const SOON: Duration = Duration::from_secs(60);
/// Sites of the main job, and rounds of its races.
const JOB: &str = "olm-job";
const BAD: &str = "olm-bad";
const RACES: usize = 3;

// Calls go on while kubectl waits, so they have threads of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn o3_o8_o9_o10_a_release_works_upgrades_under_load_and_gateways_outlive_it() -> anyhow::Result<()> {
    let _alone = CLUSTER.lock().await;
    prepare()?;
    let released = Bundle::released()?;
    let old = released.last().context("no bundle was released")?;
    let new = Bundle::candidate()?;
    programs_of_the_release(old)?;
    schemas::operator_conditions()?;
    let site = Site::create("olm")?;
    let pair = Pair::new()?;
    old.install(&pair).context("the released bundle")?;
    path(&site).await.context("the path under the released version")?;
    users_patches(&site)?;

    upgrade(&site, (old, &new), &pair).await.context("upgrade")?;
    let mark = Kit::from_env()?.audit_mark()?;
    the_main_job().await.context("the main job")?;
    let pair = rotation(&site, &new).await.context("rotation")?;
    nothing_forbidden(mark)?;
    leave_and_return(&site, &new, &pair).await.context("uninstall")?;
    examples(&new.csv)?;
    way_back(&site, (old, &new), &pair)
        .await
        .context("the way back")?;
    uninstall(old, &pair)?;
    clear(&["olm", JOB, BAD])
}

/// What the end-to-end suite holds of an installation by kustomize, under what this tree's CSV says; with rivals where only the
/// supplementary configurations are.
async fn the_main_job() -> anyhow::Result<()> {
    // Beside each other: most of it is waiting.
    let runtime = Handle::current();
    let bad = move || runtime.block_on(async { main_job::bad_input_is_named(&Site::create(BAD)?).await });
    let bad = spawn_blocking(bad);
    let site = Site::create(JOB)?;
    main_job::two_servers_are_served(&site).await?;
    main_job::second_extensions_are_refused(&site)?;
    main_job::the_install_guides_patch_stays(&site).await?;
    races::one_in_a_namespace(&Kit::from_env()?.client().await?, RACES).await?;
    bad.await??;
    main_job::whoever_is_killed_calls_work(&site, "one_add").await
}

/// The programs of a release cannot be kept in the repository. Without `MCPGW_RELEASED_BIN_DIR` those of this tree run in
/// its Deployments, with its arguments, under its roles.
fn programs_of_the_release(old: &Bundle) -> anyhow::Result<()> {
    let Some(folder) = env::var_os("MCPGW_RELEASED_BIN_DIR").map(PathBuf::from) else {
        note(&format!(
            "{}: its Deployments and roles, this tree's programs (MCPGW_RELEASED_BIN_DIR names a folder with its own)",
            old.name()
        ));
        return Ok(());
    };
    let kit = Kit::from_env()?;
    for part in ["operator", "webhook", "broker"] {
        let program = folder.join(format!("mcp-gateway-{part}"));
        ensure!(program.is_file(), "{} is not there", program.display());
        let files = if part == "broker" {
            ["/mcp_gateway", "/mcp-broker-router"]
                .map(|path| (path.to_owned(), program.clone()))
                .into()
        } else {
            Default::default()
        };
        let image = Image {
            entrypoint: vec![program.to_string_lossy().into_owned()],
            files,
            ..Image::default()
        };
        kit.add_image(old.image(part), &image)?;
    }
    Ok(())
}

/// From objects to a call through Envoy, outside of the OperatorGroup; a conflict inside of it.
async fn path(site: &Site) -> anyhow::Result<()> {
    apply(&site.extension("olm", "ext", "mcp", ""))?;
    site.wait_ready("mcpge/ext -n olm")?;
    site.server("weather")?;
    site.register("weather", "w_")?;
    site.wait_ready("mcpsr/weather -n olm-servers")?;
    call(site).await?;
    apply(&rival(site, "one"))?;
    let second = refused(&rival(site, "two"))?;
    ensure!(second.contains("only one per namespace allowed"), "{second}");
    let outside = refused(&site.extension("olm", "another", "other", ""))?;
    ensure!(outside.contains("only one per namespace allowed"), "{outside}");
    Ok(())
}

/// An extension in the namespace of the OperatorGroup, for a Gateway that does not exist.
fn rival(site: &Site, name: &str) -> String {
    site.extension(NAMESPACE, name, "other", "")
        .replace("name: gw, namespace: olm-gw", "name: none")
}

async fn call(site: &Site) -> anyhow::Result<()> {
    let mut client = site.client().await?;
    client.initialize().await?;
    let result = client.call("w_add", json!({"a": 19, "b": 23})).await?;
    assert_eq!(result["content"][0]["text"], "42", "{result}");
    Ok(())
}

/// CRDs first, while the old operator works; then the rest. All under load, and every call must succeed.
async fn upgrade(site: &Site, (old, new): (&Bundle, &Bundle), pair: &Pair) -> anyhow::Result<()> {
    let load = Load::start(site, "w_add").await?;
    new.crds().context("the new CRDs in the place of the old ones")?;
    kubectl(r#"patch mcpge ext -n olm --type=merge -p {"spec":{"backendPingIntervalSeconds":31}}"#)?;
    flag("--mcp-check-interval=31", "the old operator under the new CRDs").await?;
    rolled()?;
    other_flags_than_the_release()?;
    let (before, held) = (revision(&deployment()?), carried_over()?);

    // As if a former process had crashed in its takeover.
    apply(&condition(new.name(), &[left_behind()]).to_string())?;
    let seen = format!(
        "wait -n {NAMESPACE} operatorcondition/{} --for=jsonpath={{.spec.conditions[0].reason}}=TakingOver --timeout=180s",
        new.name()
    );
    let seen = spawn_blocking(move || kubectl(&seen));
    new.replace(old, pair)?;
    seen.await?.context("Upgradeable was never False")?;
    upgradeable(new).await?;
    image(new.image("broker")).await?;
    rolled()?;
    site.wait_ready("mcpge/ext -n olm")?;
    site.wait_ready("mcpsr/weather -n olm-servers")?;
    load.further(40).await?;
    let calls = load.stop().await?;
    assert_eq!(carried_over()?, held, "claims, finalizers and Secrets of before");
    patches_are_kept(before).await?;
    note(&format!(
        "{} → {}: {calls} calls, none failed",
        old.name(),
        new.name()
    ));
    Ok(())
}

/// What an upgrade carries over: the claims with their holders, the extension with its finalizers, the gateway's keys.
fn carried_over() -> anyhow::Result<Vec<Value>> {
    let claims = get("lease -A -l mcp.kuadrant.io/claim=true")?;
    let claims = claims["items"].as_array().cloned().unwrap_or_default();
    ensure!(claims.len() >= 4, "claims of two extensions: {claims:?}");
    let of_claim = |claim: &Value| json!([claim["metadata"]["name"], claim["spec"]["holderIdentity"]]);
    let mut carried: Vec<Value> = claims.iter().map(of_claim).collect();
    let extension = &get("mcpge ext -n olm")?["metadata"];
    carried.push(json!([extension["uid"], extension["finalizers"]]));
    let secret = get("secret mcp-gateway-session-signing-key -n olm")?;
    carried.push(json!([secret["metadata"]["uid"], secret["data"]]));
    Ok(carried)
}

/// What the guide says when an upgrade is to be undone: the CSV goes, and the release is installed again, with its older CRDs.
/// Gateways serve all the while, and keep what users patched.
async fn way_back(site: &Site, (old, new): (&Bundle, &Bundle), pair: &Pair) -> anyhow::Result<()> {
    let load = Load::start(site, "w_add").await?;
    new.delete(pair)?;
    old.install(pair)?;
    image(old.image("broker")).await?;
    rolled()?;
    site.wait_ready("mcpge/ext -n olm")?;
    site.wait_ready("mcpsr/weather -n olm-servers")?;
    load.further(20).await?;
    let calls = load.stop().await?;
    note(&format!(
        "{} → {}: {calls} calls, none failed",
        new.name(),
        old.name()
    ));
    main_job::install_guides_patch_is_in(&deployment()?)
}

/// What a process that died in its takeover left in the OperatorCondition.
pub(crate) fn left_behind() -> Value {
    json!({"type": "Upgradeable", "status": "False", "reason": "Crashed", "message": "left behind",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

async fn upgradeable(bundle: &Bundle) -> anyhow::Result<()> {
    let line = format!("operatorcondition {} -n {NAMESPACE}", bundle.name());
    let told = async || {
        let condition = get(&line).map_err(|error| format!("{error:#}"))?["spec"]["conditions"][0].clone();
        if condition["status"] == "True" {
            Ok(())
        } else {
            Err(condition.to_string())
        }
    };
    Ok(eventually(SOON, "Upgradeable to be True", told).await?)
}

async fn image(wanted: &str) -> anyhow::Result<()> {
    let there = async || {
        let live = deployment().map_err(|error| format!("{error:#}"))?;
        let image = live["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        if image == wanted {
            Ok(())
        } else {
            Err(image.to_string())
        }
    };
    Ok(eventually(SOON, "the broker's new image", there).await?)
}

/// A new authority everywhere at once, mounted files a while later, the rollout last. Writes of extensions are refused
/// until a replica has read the Secret, and what conflicts is refused all the time.
async fn rotation(site: &Site, bundle: &Bundle) -> anyhow::Result<Pair> {
    let kit = Kit::from_env()?;
    kit.delay_volumes(Duration::from_secs(60))?;
    let pair = Pair::new()?;
    let begun = std::time::Instant::now();
    bundle.rotate(&pair)?;
    let edits = [format!("mcpge one -n {NAMESPACE}"), "mcpge ext -n olm".to_owned()];
    let rivals = [rival(site, "two"), site.extension("olm", "another", "other", "")];
    for (edit, rival) in edits.iter().zip(&rivals) {
        let back = async || {
            // Both replicas are asked, one after the other.
            for _ in 0..ASKED {
                match decides(edit, rival) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Err(anyhow::anyhow!("wrongly admitted: {rival}"))),
                    Err(error) => return Err(format!("{error:#}")),
                }
            }
            Ok(Ok(()))
        };
        // Far less than the files need: the webhook reads the Secret itself.
        eventually(Duration::from_secs(40), "admission to be back", back).await??;
    }
    note(&format!(
        "rotation: writes of extensions passed again {} s after it",
        begun.elapsed().as_secs()
    ));
    kit.delay_volumes(Duration::ZERO)?;
    bundle.roll_webhook()?;
    for (edit, rival) in edits.iter().zip(&rivals) {
        ensure!(
            decides(edit, rival)?,
            "wrongly admitted after the rollout: {rival}"
        );
    }
    Ok(pair)
}

/// True when admission takes an edit and refuses a rival for what it is, false when it takes the rival too.
///
/// # Errors
/// When admission does not answer.
fn decides(edit: &str, rival: &str) -> anyhow::Result<bool> {
    let written = write_dry("create", rival)?;
    if written.accepted {
        return Ok(false);
    }
    ensure!(
        written.error.contains("only one per namespace allowed"),
        "{}",
        written.error
    );
    let patch = r#"{"spec":{"backendPingIntervalSeconds":33}}"#;
    kubectl(&format!("patch {edit} --type=merge --dry-run=server -p {patch}")).map(|_| true)
}

/// The CSV alone is deleted, with objects present, and installed again. Nothing is refused meanwhile, and after
/// the command of the guide nothing that is deleted waits.
async fn leave_and_return(site: &Site, bundle: &Bundle, pair: &Pair) -> anyhow::Result<()> {
    let before = brokers("olm")?;
    bundle.delete(pair)?;
    let unguarded = async || {
        let outside = write_dry("create", &site.extension("olm", "another", "other", ""));
        match outside.map_err(|error| format!("{error:#}"))? {
            written if written.accepted => Ok(()),
            written => Err(written.error),
        }
    };
    eventually(SOON, "the supplementary configurations to go", unguarded).await?;
    kubectl("annotate mcpge/ext -n olm edited=yes")?;
    kubectl(&format!("delete mcpge one -n {NAMESPACE} --timeout=60s"))?;
    let held = || anyhow::Ok(get("mcpge ext -n olm")?["metadata"]["finalizers"].is_array());
    ensure!(
        held()?,
        "the operator had the rights to let go: this test proves less than it says"
    );
    release()?;
    ensure!(!held()?, "what is deleted now would wait for an operator");
    call(site).await?;
    assert_eq!(
        brokers("olm")?,
        before,
        "deleting the CSV must not touch gateways"
    );
    let mark = Kit::from_env()?.audit_mark()?;
    bundle.install(pair)?;
    upgradeable(bundle).await?;
    site.wait_ready("mcpge/ext -n olm")?;
    call(site).await?;
    assert_eq!(
        brokers("olm")?,
        before,
        "an operator that comes back adopts what serves"
    );
    nothing_forbidden(mark)
}

/// What the guide says about an uninstall: our command first, then the CSV.
fn uninstall(bundle: &Bundle, pair: &Pair) -> anyhow::Result<()> {
    release()?;
    bundle.delete(pair)
}

fn release() -> anyhow::Result<()> {
    let released = Command::new(program())
        .args(["uninstall", "--namespace", NAMESPACE])
        .output()?;
    ensure!(
        released.status.success(),
        "{}",
        String::from_utf8_lossy(&released.stderr)
    );
    Ok(())
}

/// The examples and the resource that the console offers first are accepted, webhooks included.
fn examples(csv: &Value) -> anyhow::Result<()> {
    let annotation = |name: &str| csv["metadata"]["annotations"][name].as_str().unwrap().to_owned();
    let mut examples: Vec<Value> = serde_json::from_str(&annotation("alm-examples"))?;
    examples.push(serde_json::from_str(&annotation(
        "operatorframework.io/initialization-resource",
    ))?);
    for example in &mut examples {
        example["metadata"]["namespace"] = json!(NAMESPACE);
        kubectl_with(
            &["create", "--dry-run=server", "--validate=strict", "-f", "-"],
            &example.to_string(),
        )
        .with_context(|| format!("example {}", example["kind"]))?;
    }
    Ok(())
}
