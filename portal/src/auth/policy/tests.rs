//! The table as it is read by people, and what the function makes of it.

use super::*;
use api_types::User;
use std::fmt::Write;
use std::sync::Arc;
use strum::VariantArray;
use tenant_controlplane::id::{ApiTokenId, UserId};
use time::OffsetDateTime;
use uuid::Uuid;

/// A caller with that role in one organization, by a session or by a token.
fn caller(organization: OrganizationId, role: Role, by_token: bool) -> Actor {
    let id = UserId::from_uuid(Uuid::now_v7());
    let user = User {
        id: id.to_string(),
        object: "user".into(),
        email: "ana@example.com".into(),
        display_name: "Ana".into(),
        created_at: OffsetDateTime::UNIX_EPOCH,
    };
    let organization = Organization {
        id: organization,
        name: "default".parse().unwrap(),
        display_name: "Default".into(),
        created_at: OffsetDateTime::UNIX_EPOCH,
    };
    let token = by_token.then(|| ApiTokenId::from_uuid(Uuid::now_v7()));
    let memberships = vec![(organization, role)];
    Actor { user, user_id: id, memberships, token, until: None, session: None, refused: Arc::default() }
}

/// Roles × actions, as [`may`] answers: `+` yes, `t` not with a token, `-` no.
#[test]
fn the_table_is_as_agreed() {
    let organization = OrganizationId::from_uuid(Uuid::now_v7());
    let roles = [Role::Viewer, Role::Editor, Role::Admin, Role::Owner];
    let mut table = format!("{:<32}{}\n", "", roles.map(|role| format!("{:<8}", role.as_str())).concat().trim_end());
    for action in Action::VARIANTS {
        let object = match action {
            Action::ReadAccount | Action::ManageAccount | Action::CreateOrganization => Object::Account,
            _ => Object::Of(organization),
        };
        let word = |role| {
            let by = |token| may(&caller(organization, role, token), *action, object).is_ok();
            match (by(false), by(true)) {
                (true, true) => "+",
                (true, false) => "t",
                (false, false) => "-",
                (false, true) => "a token may do more than a person",
            }
        };
        let words = roles.map(|role| format!("{:<8}", word(role))).concat();
        writeln!(table, "{:<32}{}", <&str>::from(*action), words.trim_end()).unwrap();
    }
    insta::assert_snapshot!("policy", table);
}

#[test]
fn another_organization_is_out_of_reach_and_a_refusal_is_remembered() {
    let (mine, other) = (OrganizationId::from_uuid(Uuid::now_v7()), OrganizationId::from_uuid(Uuid::now_v7()));
    for action in Action::VARIANTS.iter().filter(|action| action.rule().session != Least::Anybody) {
        let owner = caller(mine, Role::Owner, false);
        assert_eq!(may(&owner, *action, other), Err(Denied::OutOfReach), "{action:?}");
        assert!(matches!(authorize(&owner, *action, other), Err(Error::NotFound { .. })), "{action:?}");
        assert_eq!(owner.refused_in(), None, "nobody else's log tells of it");
    }
    let viewer = caller(mine, Role::Viewer, false);
    let refused = authorize(&viewer, Action::CreateCluster, mine);
    assert!(matches!(refused, Err(Error::Forbidden { needed: "editor", held: "viewer" })));
    assert_eq!(viewer.refused_in(), Some(mine));
}

#[test]
fn an_account_is_its_owners_and_a_small_tokens_not() {
    let organization = OrganizationId::from_uuid(Uuid::now_v7());
    let allowed = |role, token| may(&caller(organization, role, token), Action::ManageAccount, Object::Account).is_ok();
    assert_eq!(
        [(Role::Viewer, false), (Role::Editor, true), (Role::Admin, true)].map(|(r, t)| allowed(r, t)),
        [true, false, true]
    );
    let mut alone = caller(organization, Role::Owner, true);
    alone.memberships.clear();
    assert_eq!(may(&alone, Action::ManageAccount, Object::Account), Err(Denied::OutOfReach));
    assert_eq!(may(&alone, Action::ReadAccount, Object::Account), Ok(()));
}
