//! Kubeconfigs, join tokens, settings, and what must never be readable.

use migrations::*;

use crate::harness::*;

pub async fn kubeconfigs_are_bound_and_released(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let (store, kubeconfigs, org) = (&fixture.store, fixture.store.kubeconfigs(), tenant.organization);
    let cluster = tenant.cluster("demo").await;
    drain(store).await;
    let issued = kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    assert_eq!(drain(store).await[0].id, cluster.id.uuid());
    assert_eq!(kubeconfigs.unbound(cluster.id).await.unwrap(), std::slice::from_ref(&issued));
    kubeconfigs.set_serial(issued.id, "0a1b").await.unwrap();
    kubeconfigs.mark_bound(issued.id).await.unwrap();
    assert!(kubeconfigs.unbound(cluster.id).await.unwrap().is_empty());
    let bound = kubeconfigs.get(org, issued.id).await.unwrap();
    assert_eq!(
        (bound.bound, bound.serial.as_deref(), bound.created_by),
        (true, Some("0a1b"), tenant.actor.to_string())
    );
    kubeconfigs.revoke(org, issued.id, tenant.actor).await.unwrap();
    kubeconfigs.revoke(org, issued.id, tenant.actor).await.unwrap();
    assert_eq!(drain(store).await.len(), 1);
    assert_eq!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap()[0].id, issued.id);
    kubeconfigs.mark_unbound(issued.id).await.unwrap();
    assert!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap().is_empty());
    // Revoked before anybody said that it was applied: its absence must still be confirmed.
    let early = kubeconfigs.insert(tenant.new_kubeconfig(cluster.id)).await.unwrap();
    kubeconfigs.revoke(org, early.id, tenant.actor).await.unwrap();
    assert!(kubeconfigs.unbound(cluster.id).await.unwrap().is_empty());
    assert_eq!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap()[0].id, early.id);
    assert_eq!(kubeconfigs.list(org, cluster.id).await.unwrap().len(), 2);
    // One whose time is over opens nothing, and its binding need not stay for ever.
    kubeconfigs.mark_unbound(early.id).await.unwrap();
    let ended = NewKubeconfig { expires_at: hence(-1), ..tenant.new_kubeconfig(cluster.id) };
    let ended = kubeconfigs.insert(ended).await.unwrap();
    assert!(kubeconfigs.unbound(cluster.id).await.unwrap().is_empty());
    assert_eq!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap()[0].id, ended.id);
    kubeconfigs.mark_unbound(ended.id).await.unwrap();
    assert!(kubeconfigs.revoked_unapplied(cluster.id).await.unwrap().is_empty());
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
    let enrolment = machine(join_secret.expose_secret(), "fingerprint");
    let texts = [
        format!("{store:?} {certificates:?} {join:?} {join_secret:?} {setup:?}"),
        format!("{owner:?} {user:?} {session:?} {enrolment:?} {:?}", fixture.kek),
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
    let news = |text: &'static str| {
        let store = fixture.store.clone();
        tokio::spawn(async move { store.settings().put_secret_new("race", text).await.unwrap().to_string() })
    };
    let (one, two) = (news("one"), news("two"));
    assert_eq!(one.await.unwrap(), two.await.unwrap());
}
