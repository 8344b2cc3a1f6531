//! People, organizations, tokens, sessions.

use migrations::*;

use crate::harness::*;

fn owner(email: &str) -> NewOwner {
    NewOwner { email: email.to_owned(), display_name: "Ada".to_owned(), password_hash: Secret::from("$argon2id$x") }
}

pub async fn the_set_up_link_works_once(fixture: Fixture) {
    let identity = fixture.store.identity();
    assert!(identity.setup_needed().await.unwrap());
    assert_eq!(is_missing(identity.complete_setup("pilothouse_setup_x", owner("a@b.c")).await), "setup token");
    let old = identity.create_setup_token().await.unwrap();
    let new = identity.create_setup_token().await.unwrap();
    assert!(new.expose_secret().starts_with("pilothouse_setup_"));
    assert_eq!(is_missing(identity.complete_setup(old.expose_secret(), owner("a@b.c")).await), "setup token");
    let (one, two) = tokio::join!(
        identity.complete_setup(new.expose_secret(), owner(" Ada@Example.com ")),
        identity.complete_setup(new.expose_secret(), owner("eve@example.com")),
    );
    assert!(one.is_ok() != two.is_ok(), "one of two who come at once");
    let (user, organization) = one.or(two).unwrap();
    assert_eq!(organization.name.as_str(), "default");
    assert!(!identity.setup_needed().await.unwrap());
    assert_eq!(identity.role_in(user.id, organization.id).await.unwrap(), Some(Role::Owner));
    assert_eq!(identity.projects(organization.id).await.unwrap()[0].name.as_str(), "default");
    let found = identity.user_by_email(&user.email.to_uppercase()).await.unwrap().unwrap();
    assert_eq!((found.id, found.password_hash.unwrap().expose_secret()), (user.id, "$argon2id$x"));
    // A later link opens nothing: somebody can sign in.
    let late = identity.create_setup_token().await.unwrap();
    assert_eq!(is_missing(identity.complete_setup(late.expose_secret(), owner("eve@b.c")).await), "setup token");
    assert_eq!(identity.ensure_admin().await.unwrap().0.id, user.id);
}

pub async fn the_machines_owner_may_come_first(fixture: Fixture) {
    let identity = fixture.store.identity();
    let (admin, organization) = identity.ensure_admin().await.unwrap();
    assert_eq!(identity.ensure_admin().await.unwrap().0.id, admin.id);
    assert!(admin.password_hash.is_none() && identity.setup_needed().await.unwrap());
    let token = identity.create_setup_token().await.unwrap();
    let (user, joined) = identity.complete_setup(token.expose_secret(), owner("ada@example.com")).await.unwrap();
    assert_eq!(joined.id, organization.id);
    let mut members = identity.members(organization.id).await.unwrap();
    members.sort_by_key(|(member, _)| member.id);
    let members: Vec<_> = members.into_iter().map(|(member, role)| (member.id, role)).collect();
    assert_eq!(members, [(admin.id, Role::Owner), (user.id, Role::Owner)]);
    assert_eq!(identity.ensure_admin().await.unwrap().0.id, admin.id);
}

pub async fn tokens_end(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let (organization, user, actor) = (tenant.organization, tenant.user, tenant.actor);
    let new =
        |expires_at| NewToken { organization, user, name: "ci".to_owned(), role: Role::Editor, expires_at, actor };
    let (token, secret) = identity.create_token(new(None)).await.unwrap();
    let known = identity.token_by_secret(secret.expose_secret()).await.unwrap().unwrap();
    assert_eq!((known.id, known.role), (token.id, Role::Editor));
    let used = identity.tokens(organization).await.unwrap()[0].last_used_at;
    assert!(used.is_some());
    identity.token_by_secret(secret.expose_secret()).await.unwrap();
    assert_eq!(identity.tokens_of(user).await.unwrap()[0].last_used_at, used, "a use is noted now and then");
    let mut bent = secret.expose_secret().to_owned();
    bent.replace_range(20..21, if &bent[20..21] == "0" { "1" } else { "0" });
    for wrong in ["", "pilothouse_", &bent, &format!("{}x", secret.expose_secret())] {
        assert!(identity.token_by_secret(wrong).await.unwrap().is_none(), "{wrong}");
    }
    let (_, late) = identity.create_token(new(Some(hence(-1)))).await.unwrap();
    assert!(identity.token_by_secret(late.expose_secret()).await.unwrap().is_none());
    assert_eq!(identity.prune().await.unwrap(), 1);
    identity.revoke_token(organization, token.id, actor).await.unwrap();
    assert!(identity.token_by_secret(secret.expose_secret()).await.unwrap().is_none());
    assert_eq!(is_missing(identity.revoke_token(organization, token.id, actor).await), "token");
    let unknown_user = NewToken { user: tenant_controlplane::id::UserId::from_uuid(uuid::Uuid::now_v7()), ..new(None) };
    assert_eq!(is_missing(identity.create_token(unknown_user).await), "organization");
}

pub async fn sessions_end(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let address = [192, 0, 2, 7].into();
    let put = async |hash: &str, seconds| identity.put_session(new_session(tenant.user, hash, seconds)).await.unwrap();
    let live = put("aa", 60).await;
    put("bb", -60).await;
    assert!(identity.session("aa").await.unwrap() == Some(live.clone()));
    assert!(identity.session("bb").await.unwrap().is_none() && identity.session("cc").await.unwrap().is_none());
    assert_eq!(identity.prune().await.unwrap(), 1);
    assert_eq!((live.network.as_str(), live.user_agent.as_str()), ("192.0.2.0/24", "Firefox"));
    identity.note_session(&live, "198.51.100.0/24").await;
    assert!(identity.session("aa").await.unwrap() == Some(live), "once a minute at most");
    fixture.meddle("UPDATE sessions SET last_used_at=last_used_at-61000 WHERE hash='aa'").await;
    let live = identity.session("aa").await.unwrap().unwrap();
    identity.note_session(&live, "198.51.100.0/24").await;
    let moved = identity.session("aa").await.unwrap().unwrap();
    assert_eq!(moved.network, "198.51.100.0/24");
    // Nobody has used it for a day, though its time is not over.
    fixture.meddle("UPDATE sessions SET last_used_at=last_used_at-86400001 WHERE hash='aa'").await;
    assert!(
        identity.session("aa").await.unwrap().is_none() && identity.sessions(tenant.user).await.unwrap().is_empty()
    );
    assert_eq!(identity.prune().await.unwrap(), 1);
    put("dd", 60).await;
    identity.delete_session("dd", address).await.unwrap();
    identity.delete_session("dd", address).await.unwrap();
    assert!(identity.session("dd").await.unwrap().is_none());
    let (one, two, three) = (put("e1", 60).await, put("e2", 60).await, put("e3", 60).await);
    let listed: Vec<_> = identity.sessions(tenant.user).await.unwrap().iter().map(|session| session.id).collect();
    assert_eq!(listed, [three.id, two.id, one.id]);
    let by = (tenant.actor, address);
    let unknown_user = tenant_controlplane::id::UserId::from_uuid(uuid::Uuid::now_v7());
    assert_eq!(is_missing(identity.end_session(unknown_user, one.id, by).await), "session");
    identity.end_session(tenant.user, one.id, by).await.unwrap();
    assert_eq!(is_missing(identity.end_session(tenant.user, one.id, by).await), "session");
    assert_eq!(identity.end_other_sessions(tenant.user, Some("e2"), by).await.unwrap(), 1);
    let left: Vec<_> = identity.sessions(tenant.user).await.unwrap().iter().map(|session| session.id).collect();
    assert_eq!(left, [two.id]);
}

/// A person who signs in again and again has the sessions that were used last; others' stay.
pub async fn the_least_used_session_makes_room(fixture: Fixture) {
    let (tenant, other) = (fixture.tenant("acme").await, fixture.person("bob@example.com").await);
    let identity = fixture.store.identity();
    identity.put_session(new_session(other, "theirs", 60)).await.unwrap();
    let most = Identity::MOST_SESSIONS;
    for number in 0..most {
        identity.put_session(new_session(tenant.user, &format!("s{number}"), 60)).await.unwrap();
    }
    // The first is in use.
    fixture.meddle("UPDATE sessions SET last_used_at=last_used_at+1000 WHERE hash='s0'").await;
    identity.put_session(new_session(tenant.user, "one-more", 60)).await.unwrap();
    let lives = async |hash: &str| identity.session(hash).await.unwrap().is_some();
    assert_eq!(identity.sessions(tenant.user).await.unwrap().len() as u64, most);
    assert!(lives("s0").await && lives("one-more").await && lives("theirs").await);
    assert!(!lives("s1").await, "the one that was used least lately");
    let filter = AuditFilter { action: Some("session.end".to_owned()), ..AuditFilter::default() };
    let said = fixture.store.audit().find(Some(tenant.organization), &filter, Page::default()).await.unwrap();
    assert!(said.len() == 1 && said[0].detail.contains("signed in too often"), "{said:?}");
}

pub async fn passwords_are_changed_and_reset(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let address = [192, 0, 2, 7].into();
    let hash_of = async || identity.user(tenant.user).await.unwrap().unwrap().password_hash;
    let email = identity.user(tenant.user).await.unwrap().unwrap().email;
    is_conflict(identity.create_password_reset(&email).await);
    for hash in ["aa", "bb", "cc"] {
        identity.put_session(new_session(tenant.user, hash, 60)).await.unwrap();
    }
    let (user, actor) = (tenant.user, tenant.actor);
    let new = NewPassword { user, hash: Secret::from("$argon2id$y"), keep: Some("bb"), actor, address: Some(address) };
    assert_eq!(identity.change_password(new.clone()).await.unwrap(), 2);
    assert!(identity.session("bb").await.unwrap().is_some() && identity.session("aa").await.unwrap().is_none());
    assert_eq!(hash_of().await.unwrap().expose_secret(), "$argon2id$y");
    assert!(!identity.setup_needed().await.unwrap());
    assert_eq!(is_missing(identity.create_password_reset("no@example.com").await), "user with this e-mail address");
    let (old, _) = identity.create_password_reset(&email).await.unwrap();
    let (link, end) = identity.create_password_reset(&format!(" {}", email.to_uppercase())).await.unwrap();
    assert!(end > hence(3500) && end < hence(3700));
    let (old, link) = (old.expose_secret(), link.expose_secret());
    let reset = async |token: &str| identity.complete_password_reset(token, Secret::from("$argon2id$z"), address).await;
    for wrong in [old, "", "pilothouse_reset_x", &link.replace("reset", "setup")] {
        assert_eq!(is_missing(identity.check_password_reset(wrong).await), "password link");
        assert_eq!(is_missing(reset(wrong).await), "password link");
    }
    identity.check_password_reset(link).await.unwrap();
    assert!(identity.session("bb").await.unwrap().is_some(), "a link that nobody used ends nothing");
    let (one, two) = tokio::join!(reset(link), reset(link));
    assert!(one.is_ok() != two.is_ok(), "once");
    assert!(identity.session("bb").await.unwrap().is_none());
    assert_eq!(hash_of().await.unwrap().expose_secret(), "$argon2id$z");
    let (late, _) = identity.create_password_reset(&email).await.unwrap();
    fixture.meddle("UPDATE password_resets SET expires_at=1").await;
    assert_eq!(is_missing(reset(late.expose_secret()).await), "password link");
    assert_eq!(identity.prune().await.unwrap(), 1);
    let (unused, _) = identity.create_password_reset(&email).await.unwrap();
    identity.change_password(new).await.unwrap();
    assert_eq!(is_missing(reset(unused.expose_secret()).await), "password link");
}

pub async fn a_token_in_a_new_network_is_noted(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let (organization, user, actor) = (tenant.organization, tenant.user, tenant.actor);
    let new = NewToken { organization, user, name: "ci".to_owned(), role: Role::Editor, expires_at: None, actor };
    let (token, secret) = identity.create_token(new).await.unwrap();
    for network in (0..10).map(|number| format!("10.0.{number}.0/24")) {
        for _ in 0..2 {
            identity.note_token_network(&token, &network, [10, 0, 0, 1].into()).await.unwrap();
        }
    }
    let known = identity.token_by_secret(secret.expose_secret()).await.unwrap().unwrap().addresses;
    assert_eq!((known.len(), known[0].as_str(), known[7].as_str()), (8, "10.0.2.0/24", "10.0.9.0/24"));
    let filter = AuditFilter { action: Some("token.use".to_owned()), ..AuditFilter::default() };
    let entries = fixture.store.audit().find(Some(organization), &filter, Page::default()).await.unwrap();
    assert_eq!((entries.len(), entries[0].address.as_deref()), (10, Some("10.0.0.1")));
    assert_eq!(
        (entries[0].actor.clone(), entries[0].detail.as_str()),
        (token.id.to_string(), "from a new network: 10.0.9.0/24")
    );
}

pub async fn what_people_do_is_in_the_audit_log(fixture: Fixture) {
    let (store, identity) = (&fixture.store, fixture.store.identity());
    let link = identity.create_setup_token().await.unwrap();
    let (user, organization) = identity.complete_setup(link.expose_secret(), owner("ada@example.com")).await.unwrap();
    identity.put_session(new_session(user.id, "aa", 60)).await.unwrap();
    identity.delete_session("aa", [192, 0, 2, 9].into()).await.unwrap();
    let found = store.audit().list(organization.id, Page::default()).await.unwrap();
    let actions: Vec<_> = found.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["user.sign_out", "user.sign_in", "setup.complete", "organization.create", "audit.begin"]);
    assert_eq!(found[0].address.as_deref(), Some("192.0.2.9"));
    assert!(found[1].detail.starts_with("ses_") && found[1].detail.ends_with(" Firefox"), "{found:?}");
    assert_eq!((found[1].actor.clone(), found[1].target.clone()), (user.id.to_string(), user.id.to_string()));
    // Who is in no organization is the operator's matter.
    let unknown_user = tenant_controlplane::id::UserId::from_uuid(uuid::Uuid::now_v7());
    let (actor, address) = (Actor::Anonymous, Some([192, 0, 2, 1].into()));
    let event = UserEvent { user: unknown_user, actor, action: "user.sign_in_refused", detail: "", address };
    store.audit().record_user(event).await.unwrap();
    let platform = store.audit().find(None, &AuditFilter::default(), Page::first(1)).await.unwrap();
    assert_eq!((platform[0].actor.as_str(), platform[0].organization), ("anonymous", None));
}

pub async fn organizations_and_projects(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let name = "acme".parse().unwrap();
    assert_eq!(identity.organizations_named("acme").await.unwrap()[0].id, tenant.organization);
    assert_eq!(identity.organization(tenant.organization).await.unwrap().name, name);
    let taken = identity.create_organization(tenant.user, name.clone(), "", tenant.actor).await;
    assert_eq!(is_conflict(taken), "the name `acme` is already used by another organization of yours");
    let names: Vec<_> = identity.organizations_of(tenant.user).await.unwrap();
    let names: Vec<_> = names.iter().map(|(organization, role)| (organization.name.as_str(), *role)).collect();
    assert_eq!(names, [("default", Role::Owner), ("acme", Role::Owner)]);
    let new = NewProject {
        organization: tenant.organization,
        name: "blue".parse().unwrap(),
        display_name: "Blue".to_owned(),
        actor: tenant.actor,
    };
    let project = identity.create_project(new.clone()).await.unwrap();
    is_conflict(identity.create_project(new).await);
    assert_eq!(identity.project(tenant.organization, "blue").await.unwrap(), project);
    assert_eq!(identity.project(tenant.organization, &project.id.to_string()).await.unwrap(), project);
    assert_eq!(identity.projects(tenant.organization).await.unwrap().len(), 2);
    assert_eq!(is_missing(identity.project(tenant.organization, "red").await), "project");
    assert!(Role::Owner > Role::Admin && Role::Admin > Role::Editor && Role::Editor > Role::Viewer);
    assert_eq!(fixture.store.hosts().list().await.unwrap().len(), 1);
}

/// A name that another tenant has is free, so nobody learns that there is such a tenant; and the installation's own `default` stays
/// the one the machine's operator acts in.
pub async fn names_of_organizations_are_no_oracle(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let default = identity.organizations_named("default").await.unwrap().remove(0);
    let eve = fixture.person("eve@example.com").await;
    let actor = Actor::User(eve);
    for name in ["acme", "default"] {
        let made = identity.create_organization(eve, name.parse().unwrap(), name, actor).await.unwrap();
        assert!(made.id != tenant.organization && made.id != default.id);
        is_conflict(identity.create_organization(eve, name.parse().unwrap(), name, actor).await);
        assert_eq!(identity.organizations_named(name).await.unwrap().len(), 2);
    }
    assert_eq!(identity.ensure_admin().await.unwrap().1.id, default.id);
    assert_eq!(identity.organizations_of(eve).await.unwrap().len(), 2);
    assert!(identity.organizations_named("~platform").await.unwrap().is_empty());
}
