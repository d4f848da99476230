//! What becomes of claims whose write was refused by somebody else, dried, or undone: they block nobody for longer than
//! the grace.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use mcp_gateway_api::{claims, extension::MCPGatewayExtension};
use mcp_gateway_e2e::{
    Cluster, OPERATOR_NAMESPACE, apply, delete, kubectl,
    races::{extension, namespaces},
};
use mcp_gateway_kit::eventually;

use crate::admission_races::client;

/// Creates `<namespace>/e` for `<gateway>/gw` until somebody else than we refuses it with `text`.
async fn refused_by_another(namespace: &str, gateway: &str, text: &str) -> anyhow::Result<()> {
    let api: Api<MCPGatewayExtension> = Api::namespaced(client().await?, namespace);
    let wanted = extension(namespace, "e", (gateway, "gw"))?;
    let refused = async || match api.create(&PostParams::default(), &wanted).await {
        Err(kube::Error::Api(status)) if status.message.contains(text) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    // A refusal of ours comes first while the claim of the attempt before it is being decided.
    let patience = Duration::from_secs(claims::GRACE_SECONDS.unsigned_abs() + 20);
    Ok(eventually(patience, "somebody else to refuse", refused).await?)
}

/// A create of another extension for the same Gateway: being decided at first, and admitted when the grace is over.
async fn admitted_after_the_grace(namespace: &str, gateway: &str) -> anyhow::Result<()> {
    let api: Api<MCPGatewayExtension> = Api::namespaced(client().await?, namespace);
    let wanted = extension(namespace, "e", (gateway, "gw"))?;
    match api.create(&PostParams::default(), &wanted).await {
        Err(kube::Error::Api(status)) if status.message.contains("being decided") => {}
        other => anyhow::bail!("the refused create left no claim, so this test shows nothing: {other:?}"),
    }
    let grace = Duration::from_secs(claims::GRACE_SECONDS.unsigned_abs() + 5);
    let admitted = async || {
        let created = api.create(&PostParams::default(), &wanted).await;
        created.map(drop).map_err(|error| error.to_string())
    };
    eventually(grace, "the claim to end", admitted).await?;
    delete(&format!("mcpge e -n {namespace}")).map(drop)
}

#[tokio::test]
async fn t57_a_create_that_the_quota_refuses_blocks_nobody_for_longer_than_the_grace() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    namespaces(["quota-a".to_owned(), "quota-b".to_owned()].into_iter())?;
    apply(
        "{apiVersion: v1, kind: ResourceQuota, metadata: {name: none, namespace: quota-a}, \
         spec: {hard: {count/mcpgatewayextensions.mcp.kuadrant.io: '0'}}}",
    )?;
    refused_by_another("quota-a", "quota-gw", "quota").await?;
    admitted_after_the_grace("quota-b", "quota-gw").await
}

#[tokio::test]
async fn t57_a_create_that_another_webhook_refuses_blocks_nobody_for_longer_than_the_grace()
-> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    namespaces(["veto-a".to_owned(), "veto-b".to_owned()].into_iter())?;
    // Nobody answers at that address, and it fails closed. Validating webhooks are asked at the same time.
    apply(
        "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: veto}, webhooks: [\
         {name: veto.example.com, admissionReviewVersions: [v1], sideEffects: None, failurePolicy: Fail, \
         clientConfig: {url: 'https://127.0.0.1:1/'}, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: veto-a}}, \
         rules: [{apiGroups: [mcp.kuadrant.io], apiVersions: [v1alpha1], operations: [CREATE], resources: [mcpgatewayextensions]}]}]}",
    )?;
    let outcome = refused_by_another("veto-a", "veto-gw", "veto.example.com").await;
    delete("validatingwebhookconfiguration veto")?;
    outcome?;
    admitted_after_the_grace("veto-b", "veto-gw").await
}

#[tokio::test]
async fn t58_a_dry_run_leaves_no_lease() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let client = client().await?;
    namespaces(["dry".to_owned()].into_iter())?;
    let api: Api<MCPGatewayExtension> = Api::namespaced(client.clone(), "dry");
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    api.create(&params, &extension("dry", "e", ("dry-gw", "gw"))?)
        .await?;
    assert_eq!(claims_of(&client, "dry/e").await?, Vec::<String>::new());
    api.create(&PostParams::default(), &extension("dry", "e", ("dry-gw", "gw"))?)
        .await?;
    assert_eq!(
        claims_of(&client, "dry/e").await?,
        ["gateway/dry-gw/gw", "namespace/dry"]
    );
    let columns =
        r"custom-columns=KEY:.metadata.annotations.mcp\.kuadrant\.io/claim-key,HOLDER:.spec.holderIdentity";
    let listed = kubectl(&format!(
        "get leases -n {OPERATOR_NAMESPACE} -l mcp.kuadrant.io/claim -o {columns}"
    ))?;
    let claims = listed.lines().filter(|line| line.ends_with(" dry/e"));
    let mut claims: Vec<&str> = claims.filter_map(|line| line.split_whitespace().next()).collect();
    claims.sort_unstable();
    assert_eq!(claims, ["gateway/dry-gw/gw", "namespace/dry"], "{listed}");
    delete("mcpge e -n dry")?;
    Ok(())
}

#[tokio::test]
async fn a_create_right_after_a_delete_is_admitted_at_once() -> anyhow::Result<()> {
    let _cluster = Cluster::ready().await?;
    let client = client().await?;
    namespaces(["again".to_owned()].into_iter())?;
    let api: Api<MCPGatewayExtension> = Api::namespaced(client.clone(), "again");
    api.create(
        &PostParams::default(),
        &extension("again", "first", ("again-gw", "gw"))?,
    )
    .await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let params = ListParams::default().labels(claims::CLAIM_LABEL);
    eventually(
        Duration::from_secs(20),
        "the operator to confirm both claims",
        async || {
            let all = leases.list(&params).await.map_err(|error| error.to_string())?;
            let ours = all.iter().map(claims::Claim::of).filter(|claim| {
                claim.confirmed
                    && claim
                        .holder
                        .as_ref()
                        .is_some_and(|holder| holder.to_string() == "again/first")
            });
            let confirmed = ours.count();
            if confirmed == 2 {
                Ok(())
            } else {
                Err(format!("{confirmed} of 2"))
            }
        },
    )
    .await?;
    delete("mcpge first -n again")?;
    api.create(
        &PostParams::default(),
        &extension("again", "second", ("again-gw", "gw"))?,
    )
    .await?;
    delete("mcpge second -n again")?;
    eventually(Duration::from_secs(90), "the claims to be swept", async || {
        let left = claims_of(&client, "again/second")
            .await
            .map_err(|error| error.to_string())?;
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        }
    })
    .await?;
    Ok(())
}

/// Keys that a holder claims, as `kubectl get leases -l mcp.kuadrant.io/claim` would show them.
async fn claims_of(client: &Client, holder: &str) -> anyhow::Result<Vec<String>> {
    let api: Api<Lease> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let leases = api
        .list(&ListParams::default().labels(claims::CLAIM_LABEL))
        .await?;
    let mut keys: Vec<String> = leases
        .iter()
        .map(claims::Claim::of)
        .filter(|claim| claim.holder.as_ref().is_some_and(|key| key.to_string() == holder))
        .filter_map(|claim| claim.key.map(|key| key.to_string()))
        .collect();
    keys.sort();
    Ok(keys)
}
