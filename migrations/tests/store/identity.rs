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
    let stranger = NewToken { user: tenant_controlplane::id::UserId::from_uuid(uuid::Uuid::now_v7()), ..new(None) };
    assert_eq!(is_missing(identity.create_token(stranger).await), "organization");
}

pub async fn sessions_end(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let session = |hash: &str, expires| Session {
        hash: hash.to_owned(),
        user: tenant.user,
        created_at: hence(0).replace_nanosecond(0).unwrap(),
        expires_at: hence(expires).replace_nanosecond(0).unwrap(),
    };
    let live = session("aa", 60);
    identity.put_session(live.clone()).await.unwrap();
    identity.put_session(session("bb", -60)).await.unwrap();
    assert!(identity.session("aa").await.unwrap() == Some(live));
    assert!(identity.session("bb").await.unwrap().is_none() && identity.session("cc").await.unwrap().is_none());
    assert_eq!(identity.prune().await.unwrap(), 1);
    identity.delete_session("aa").await.unwrap();
    identity.delete_session("aa").await.unwrap();
    assert!(identity.session("aa").await.unwrap().is_none());
    identity.put_session(session("dd", 60)).await.unwrap();
    identity.set_password(tenant.user, Secret::from("$argon2id$y")).await.unwrap();
    assert!(identity.session("dd").await.unwrap().is_none(), "a new password ends every session");
    assert!(!identity.setup_needed().await.unwrap());
}

pub async fn organizations_and_projects(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let identity = fixture.store.identity();
    let name = "acme".parse().unwrap();
    assert_eq!(identity.organization_by_name(&name).await.unwrap().id, tenant.organization);
    assert_eq!(identity.organization(tenant.organization).await.unwrap().name, name);
    let taken = identity.create_organization(tenant.user, name, "", tenant.actor).await;
    assert_eq!(is_conflict(taken), "the name `acme` is taken by another organization");
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
