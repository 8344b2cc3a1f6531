//! Kubeconfigs, join tokens, settings, and what must never be readable.

use migrations::*;
use tenant_controlplane::id::{ClusterId, KubeconfigId};
use tenant_controlplane::pki::Ca;

use crate::harness::*;

pub async fn kubeconfigs_are_signed_accepted_and_refused(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, kubeconfigs, org) = (&fixture.store, fixture.store.kubeconfigs(), tenant.organization);
    let cluster = tenant.cluster("demo").await;
    drain(store).await;
    let issued = kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    assert!(drain(store).await.is_empty(), "there is nothing to do before it is signed");
    assert!(kubeconfigs.unbound(cluster.id).await.unwrap().is_empty());
    kubeconfigs.certify(issued.id, "0a1b", "<authority>").await.unwrap();
    assert_eq!(drain(store).await[0].id, cluster.id.uuid());
    is_conflict(kubeconfigs.certify(issued.id, "0a1c", "<another>").await);
    assert_eq!(kubeconfigs.unbound(cluster.id).await.unwrap()[0].id, issued.id);
    let state = async |id| kubeconfigs.get(org, id).await.unwrap().state(hence(0));
    assert_eq!(state(issued.id).await, KubeconfigState::Pending);
    kubeconfigs.mark_bound(issued.id).await.unwrap();
    assert!(kubeconfigs.unbound(cluster.id).await.unwrap().is_empty());
    let bound = kubeconfigs.get(org, issued.id).await.unwrap();
    assert_eq!(
        (bound.bound, bound.serial.as_deref(), bound.authority.as_deref(), bound.created_by.clone()),
        (true, Some("0a1b"), Some("<authority>"), tenant.actor.to_string())
    );
    assert_eq!((bound.state(hence(0)), bound.state(hence(601))), (KubeconfigState::Active, KubeconfigState::Expired));
    kubeconfigs.revoke(org, issued.id, tenant.actor).await.unwrap();
    kubeconfigs.revoke(org, issued.id, tenant.actor).await.unwrap();
    assert_eq!(drain(store).await.len(), 1);
    assert_eq!(state(issued.id).await, KubeconfigState::Revoking, "nobody has seen it refused");
    assert_eq!(kubeconfigs.with_authority(cluster.id).await.unwrap()[0].id, issued.id);
    assert!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap().is_empty(), "it has no binding");
    kubeconfigs.mark_refused(issued.id).await.unwrap();
    let refused = kubeconfigs.get(org, issued.id).await.unwrap();
    kubeconfigs.mark_refused(issued.id).await.unwrap();
    assert_eq!(kubeconfigs.get(org, issued.id).await.unwrap(), refused, "the first time counts");
    assert_eq!(state(issued.id).await, KubeconfigState::Revoked);
    assert!(kubeconfigs.with_authority(cluster.id).await.unwrap().is_empty());
    assert_eq!(kubeconfigs.refused_since(hence(-5)).await.unwrap()[0].id, issued.id);
    assert!(kubeconfigs.refused_since(hence(5)).await.unwrap().is_empty());
    let unlisted = async || kubeconfigs.unlisted(cluster.id).await.unwrap().len();
    kubeconfigs.set_left_behind(issued.id, Some("nobody answers")).await.unwrap();
    assert_eq!(unlisted().await, 1);
    kubeconfigs.mark_listed(issued.id, Some("a binding")).await.unwrap();
    kubeconfigs.mark_refused(issued.id).await.unwrap();
    assert_eq!(unlisted().await, 0);
    assert_eq!(kubeconfigs.get(org, issued.id).await.unwrap().left_behind.as_deref(), Some("a binding"));
    // One whose time is over opens nothing, and its authority need not stay.
    let ended = NewKubeconfig { expires_at: hence(-1), ..tenant.new_kubeconfig(cluster.id) };
    let ended = kubeconfigs.insert(ended).await.unwrap();
    kubeconfigs.certify(ended.id, "0a1d", "<ended>").await.unwrap();
    assert!(kubeconfigs.unbound(cluster.id).await.unwrap().is_empty());
    assert!(kubeconfigs.with_authority(cluster.id).await.unwrap().is_empty());
    let path = kubeconfigs.path(cluster.id).await.unwrap();
    assert_eq!((path.organization.as_str(), path.project.as_str(), path.cluster.as_str()), ("acme", "default", "demo"));
}

/// An authority is made ahead: the next kubeconfig gets its id and its key, once.
pub async fn the_next_kubeconfig_gets_the_prepared_authority(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let kubeconfigs = fixture.store.kubeconfigs();
    let (cluster, other) = (tenant.cluster("demo").await, tenant.cluster("other").await);
    let authority = Ca { cert_pem: "<public>".to_owned(), key_pem: "<key>".to_owned().into() };
    let id = KubeconfigId::from_uuid(uuid::Uuid::now_v7());
    kubeconfigs.prepare(cluster.id, id, &authority).await.unwrap();
    let prepared = |taken| PreparedAuthority { id, certificate: "<public>".to_owned(), taken };
    assert_eq!(kubeconfigs.prepared(cluster.id).await.unwrap(), [prepared(false)]);
    assert!(kubeconfigs.prepared(other.id).await.unwrap().is_empty());
    assert_ne!(kubeconfigs.insert(tenant.new_kubeconfig(other.id)).await.unwrap().id, id, "it is another cluster's");
    assert_eq!(kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap().id, id);
    assert_ne!(kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap().id, id, "it is taken");
    assert_eq!(kubeconfigs.prepared(cluster.id).await.unwrap(), [prepared(true)], "it is to be believed meanwhile");
    assert_eq!(kubeconfigs.prepared_authority(id).await.unwrap(), Some(authority.clone()));
    kubeconfigs.certify(id, "0a1b", "<public>").await.unwrap();
    assert_eq!(kubeconfigs.prepared_authority(id).await.unwrap(), None, "its key is deleted");
    let next = KubeconfigId::from_uuid(uuid::Uuid::now_v7());
    kubeconfigs.prepare(cluster.id, next, &authority).await.unwrap();
    kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    kubeconfigs.revoke(tenant.organization, next, tenant.actor).await.unwrap();
    assert!(kubeconfigs.prepared(cluster.id).await.unwrap().is_empty(), "revoked before it was signed");
    let nowhere = kubeconfigs
        .prepare(ClusterId::from_uuid(uuid::Uuid::now_v7()), KubeconfigId::from_uuid(uuid::Uuid::now_v7()), &authority)
        .await;
    assert!(matches!(nowhere, Err(StoreError::NotFound { .. })), "{nowhere:?}");
}

/// Those without an authority are revoked by their binding: such were made before there were any, and such are never signed.
pub async fn kubeconfigs_without_authority_are_released(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (kubeconfigs, org) = (fixture.store.kubeconfigs(), tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let early = kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    kubeconfigs.revoke(org, early.id, tenant.actor).await.unwrap();
    is_conflict(kubeconfigs.certify(early.id, "0a", "<late>").await);
    assert_eq!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap()[0].id, early.id);
    kubeconfigs.mark_refused(early.id).await.unwrap();
    let ended = NewKubeconfig { expires_at: hence(-1), ..tenant.new_kubeconfig(cluster.id) };
    let ended = kubeconfigs.insert(ended).await.unwrap();
    assert_eq!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap()[0].id, ended.id);
    kubeconfigs.mark_refused(ended.id).await.unwrap();
    assert!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap().is_empty());
    assert_eq!(kubeconfigs.get(org, ended.id).await.unwrap().refused_at, None, "it was not revoked");
}

pub async fn a_cluster_has_so_many_kubeconfigs(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (kubeconfigs, org) = (fixture.store.kubeconfigs(), tenant.organization);
    let (cluster, other) = (tenant.cluster("demo").await, tenant.cluster("other").await);
    // The bound of a cluster's own holds whatever its organization may have.
    fixture.store.quotas().set(org.into(), Resource::Kubeconfigs, 1000, Actor::System).await.unwrap();
    let first = kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    for _ in 1..200 {
        kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    }
    let refusal = kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap_err().to_string();
    assert!(refusal.contains("200 kubeconfigs") && refusal.contains("revoke"), "{refusal}");
    kubeconfigs.insert(tenant.new_kubeconfig(other.id)).await.unwrap();
    kubeconfigs.revoke(org, first.id, tenant.actor).await.unwrap();
    is_conflict(kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await);
    kubeconfigs.mark_refused(first.id).await.unwrap();
    kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
}

pub async fn a_cluster_keeps_its_port(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (ports, store, org) = (fixture.store.cluster_ports(), &fixture.store, tenant.organization);
    let (one, two) = (tenant.cluster("one").await, tenant.cluster("two").await);
    let of = async |cluster: &Cluster, allowed| ports.allocate(cluster.id, &allowed).await;
    assert_eq!((of(&one, 20000..=20001).await.unwrap(), of(&two, 20000..=20001).await.unwrap()), (20000, 20001));
    assert_eq!(of(&one, 20000..=20001).await.unwrap(), 20000, "asked for again");
    let third = tenant.cluster("third").await;
    assert!(is_conflict(of(&third, 20000..=20001).await).contains("no port is available"));
    assert_eq!(of(&one, 20001..=20002).await.unwrap(), 20002, "the operator allows others now");
    assert_eq!(ports.all().await.unwrap(), [(two.id, 20001), (one.id, 20002)]);
    store.clusters().request_deletion(org, two.id, tenant.actor).await.unwrap();
    store.clusters().purge(two.id).await.unwrap();
    assert_eq!(of(&third, 20001..=20001).await.unwrap(), 20001, "a deleted cluster's port is free");
}

pub async fn local_machines_and_access_of_others_exclude_each_other(fixture: Fixture) {
    let (other, identity) = (fixture.tenant("other").await, fixture.store.identity());
    let (user, first) = identity.ensure_admin().await.unwrap();
    let (store, actor) = (fixture.store.clone(), Actor::User(user.id));
    let project = identity.projects(first.id).await.unwrap()[0].id;
    let tenant = Tenant { store, user: user.id, organization: first.id, project, actor };
    let (pools, kubeconfigs) = (fixture.store.pools(), fixture.store.kubeconfigs());
    assert_eq!(fixture.store.identity().first_organization().await.unwrap(), Some(tenant.organization));
    let below = Recipient { admin: false, shared_kernel: true };
    let view = |cluster| NewKubeconfig {
        role: tenant_controlplane::status::AccessRole::View,
        ..tenant.new_kubeconfig(cluster)
    };
    let restricted = |message: &str| message.contains("share the kernel");

    let closed = tenant.cluster("closed").await.id;
    let pool = pools.insert_sharing_kernel(tenant.new_pool(closed, "web", 1)).await.unwrap();
    kubeconfigs.insert_for(tenant.new_kubeconfig(closed), Recipient::ADMIN).await.unwrap();
    kubeconfigs.insert_for(view(closed), below).await.unwrap();
    let refused = kubeconfigs.insert_for(tenant.new_kubeconfig(closed), below).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Restricted { message } if restricted(message)), "{refused:?}");
    pools.request_deletion(tenant.organization, pool.id, tenant.actor).await.unwrap();
    let refused = kubeconfigs.insert_for(tenant.new_kubeconfig(closed), below).await.unwrap_err();
    assert!(matches!(refused, StoreError::Restricted { .. }), "a pool that is going still has machines: {refused:?}");
    assert!(pools.unfit_to_share_kernel().await.unwrap().is_empty());

    // Revoked or not: whoever had it may have left a service account's token behind.
    let open = tenant.cluster("open").await.id;
    kubeconfigs.insert_for(view(open), below).await.unwrap();
    let given = kubeconfigs.insert_for(tenant.new_kubeconfig(open), below).await.unwrap();
    kubeconfigs.revoke(tenant.organization, given.id, tenant.actor).await.unwrap();
    let refused = pools.insert_sharing_kernel(tenant.new_pool(open, "web", 1)).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Restricted { message } if restricted(message)), "{refused:?}");
    assert_eq!(pools.list(tenant.organization, open).await.unwrap(), [], "nothing was made");

    // What an isolated installation allowed is found when machines are to share the kernel.
    pools.insert(tenant.new_pool(open, "web", 1)).await.unwrap();
    other.pool(other.cluster("foreign").await.id, "web").await;
    let mut unfit = pools.unfit_to_share_kernel().await.unwrap();
    unfit.sort();
    assert_eq!(unfit, ["foreign", "open"]);
}

pub async fn join_tokens_make_their_pool(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let (first, secret) = tenant.join_token(cluster.id).await;
    let (second, _) = tenant.join_token(cluster.id).await;
    assert_eq!(first.pool, second.pool, "the pool byo is made once");
    let pools = store.pools().list(org, cluster.id).await.unwrap();
    assert_eq!((pools.len(), pools[0].name.as_str(), pools[0].kind, pools[0].count), (1, "byo", PoolKind::Byo, 0));
    assert_eq!(store.pools().ensure_byo(org, cluster.id, tenant.actor).await.unwrap(), pools[0]);
    assert_eq!(secret.expose_secret().len(), "pilothouse_join_".len() + 26 + 1 + 43);
    assert!(secret.expose_secret().contains(&first.id.suffix()));
    assert_eq!(store.join_tokens().list(org, cluster.id).await.unwrap(), [first, second]);
}

/// However many have ended, those that can be used are listed, and the newest of the others.
pub async fn lists_have_all_that_can_be_used(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, org) = (&fixture.store, tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let old = store.kubeconfigs().insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    let (token, _) = tenant.join_token(cluster.id).await;
    // As they lie there after a week of making and revoking.
    let id = if fixture.is_sqlite() { "randomblob(16)" } else { "gen_random_uuid()" };
    let numbers = "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300) SELECT i FROM n) AS n";
    for (table, columns) in [
        (
            "kubeconfigs",
            "cluster, organization, name, role, kind, serial, expires_at, bound, released, created_by, created_at",
        ),
        ("join_tokens", "cluster, organization, pool, expires_at, max_uses, uses, created_at"),
    ] {
        let (hash, value) = if table == "join_tokens" { (", hash", ", 'h' || n.i") } else { ("", "") };
        fixture
            .meddle(&format!(
                "INSERT INTO {table} (id, revoked_at, {columns}{hash}) SELECT {id}, 1000, {columns}{value} FROM \
                 (SELECT {columns} FROM {table}) AS one, {numbers}"
            ))
            .await;
    }
    let listed = store.kubeconfigs().list(org, cluster.id).await.unwrap();
    assert_eq!((listed.len(), listed.iter().filter(|row| row.id == old.id).count()), (201, 1));
    let listed = store.join_tokens().list(org, cluster.id).await.unwrap();
    assert_eq!((listed.len(), listed.iter().filter(|row| row.id == token.id).count()), (201, 1));
}

pub async fn join_tokens_that_ended_unused_go(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (tokens, org) = (fixture.store.join_tokens(), tenant.organization);
    let cluster = tenant.cluster("demo").await;
    let month = 31 * 24 * 60 * 60;
    let ending = |seconds| NewJoinToken { expires_at: hence(seconds), ..tenant.new_join_token(cluster.id) };
    let (live, _) = tokens.create(ending(600)).await.unwrap();
    let (ended, _) = tokens.create(ending(-600)).await.unwrap();
    let (used, secret) = tokens.create(ending(600)).await.unwrap();
    tenant.enroll(&secret, "one").await.unwrap();
    tokens.create(ending(-month)).await.unwrap();
    assert_eq!(tokens.prune().await.unwrap(), 1);
    let kept: Vec<_> = tokens.list(org, cluster.id).await.unwrap().into_iter().map(|token| token.id).collect();
    assert_eq!(kept, [live.id, ended.id, used.id]);
}

pub async fn secrets_are_in_no_debug_text(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let store = &fixture.store;
    let identity = store.identity();
    let cluster = tenant.cluster("demo").await;
    let certificates = store.pki().put_new(cluster.id, &pki(&cluster)).await.unwrap();
    let (join, join_secret) = tenant.join_token(cluster.id).await;
    let setup = identity.create_setup_token().await.unwrap();
    let owner = NewOwner {
        email: "a@example.com".to_owned(),
        display_name: "A".to_owned(),
        password_hash: Secret::from("$argon2id$hidden"),
    };
    let (user, _) = identity.complete_setup(setup.expose_secret(), owner.clone()).await.unwrap();
    let session = identity.put_session(new_session(user.id, &"cafe".repeat(16), 60)).await.unwrap();
    let enrollment = machine(join_secret.expose_secret(), "fingerprint");
    let texts = [
        format!("{store:?} {certificates:?} {join:?} {join_secret:?} {setup:?}"),
        format!("{owner:?} {user:?} {session:?} {enrollment:?} {:?}", fixture.kek),
    ];
    let secrets =
        [&join_secret.expose_secret()[43..], &setup.expose_secret()[17..], "hidden", "cafecafe", "PRIVATE KEY"];
    for text in &texts {
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    }
    if let Some(dir) = &fixture.dir {
        use std::os::unix::fs::PermissionsExt;
        for file in std::fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            let bytes = std::fs::read(file.path()).unwrap();
            for secret in &secrets[..2] {
                assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{:?}", file.path());
            }
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
        }
    }
}

pub async fn settings_keep_facts_and_secrets(fixture: Fixture) {
    let settings = fixture.store.settings();
    assert_eq!(settings.get("domain").await.unwrap(), None);
    settings.put("domain", "a.internal").await.unwrap();
    settings.put("domain", "b.internal").await.unwrap();
    assert_eq!(settings.get("domain").await.unwrap().as_deref(), Some("b.internal"));
    settings.put_secret("ca", "key one").await.unwrap();
    assert_eq!(settings.put_secret_new("ca", "key two").await.unwrap().as_str(), "key one");
    assert_eq!(settings.get_secret("ca").await.unwrap().unwrap().as_str(), "key one");
    assert_eq!(settings.get("ca").await.unwrap(), None, "a secret is not a value");
    settings.delete("ca").await.unwrap();
    assert!(settings.get_secret("ca").await.unwrap().is_none());
    let entry = |text: &'static str| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.settings().put_secret_new("race", text).await.unwrap().to_string() })
    };
    let (one, two) = (entry("one"), entry("two"));
    assert_eq!(one.await.unwrap(), two.await.unwrap());
}
