//! The audit log: it can be read, and it shows what was done to it behind the platform's back.

use std::collections::BTreeMap;

use migrations::*;
use tenant_controlplane::id::OrganizationId;
use time::{Duration, OffsetDateTime};

use crate::harness::*;

/// An organization's id as its column holds it.
fn literal(fixture: &Fixture, organization: OrganizationId) -> String {
    let uuid = organization.uuid();
    if fixture.is_sqlite() { format!("x'{}'", uuid.simple()) } else { format!("'{uuid}'") }
}

async fn note(store: &Store, organization: Option<OrganizationId>, detail: &str) {
    let new = NewAudit { organization, actor: Actor::System, action: "test.note", target: "x", detail };
    store.audit().record(new).await.unwrap();
}

fn of(organization: OrganizationId) -> AuditLog {
    AuditLog::Organization(organization)
}

/// An organization with six entries: where its log begins, its making, and four more.
async fn noted(fixture: &Fixture, name: &str) -> OrganizationId {
    let organization = fixture.tenant(name).await.organization;
    for number in 3..7 {
        note(&fixture.store, Some(organization), &number.to_string()).await;
    }
    organization
}

pub async fn tampering_is_found(fixture: Fixture) {
    use AuditFaultKind::*;
    const CASES: &[(&str, &str, AuditFaultKind, i64)] = &[
        ("changed", "UPDATE audit SET detail='other' WHERE organization=? AND sequence=4", Changed, 4),
        ("removed", "DELETE FROM audit WHERE organization=? AND sequence IN (3,4)", Removed, 5),
        ("oldest", "DELETE FROM audit WHERE organization=? AND sequence=1", Removed, 2),
        ("newest", "DELETE FROM audit WHERE organization=? AND sequence>4", NewestRemoved, 5),
        ("headless", "DELETE FROM audit_heads WHERE chain=?", HeadRemoved, 1),
        (
            "wound-back",
            "UPDATE audit_heads SET sequence=4, hash=(SELECT hash FROM audit WHERE organization=? AND sequence=4) \
             WHERE chain=?",
            HeadChanged,
            4,
        ),
        ("unsigned", "UPDATE audit_heads SET mac='' WHERE chain=?", HeadChanged, 6),
        ("emptied", "DELETE FROM audit WHERE organization=?; DELETE FROM audit_heads WHERE chain=?", HeadRemoved, 1),
        (
            "begun-anew",
            "DELETE FROM audit WHERE organization=?; \
             UPDATE audit_heads SET sequence=0, hash='', first=1, first_hash='', mac='' WHERE chain=?",
            HeadChanged,
            0,
        ),
        ("moved", "UPDATE audit SET sequence=9 WHERE organization=? AND sequence=6", NewestRemoved, 6),
    ];
    let (owner, _) = fixture.store.identity().ensure_admin().await.unwrap();
    fixture
        .store
        .quotas()
        .set(QuotaHolder::Person(owner.id), Resource::Organizations, 20, Actor::System)
        .await
        .unwrap();
    let mut organizations = BTreeMap::new();
    for (name, ..) in CASES {
        organizations.insert(*name, noted(&fixture, name).await);
    }
    let sound = noted(&fixture, "sound").await;
    let before = fixture.store.audit().verify(None).await.unwrap();
    assert_eq!(before.faults, [], "as it was written");
    // Theirs and the sound one's, the organization of everybody's start, and the platform's two, in which the quota stands.
    let organizations_made = CASES.len() as u64 + 1;
    assert_eq!((before.chains, before.entries), (organizations_made + 3, 6 * organizations_made + 5));
    assert_eq!(fixture.store.audit().verify(None).await.unwrap(), before);
    for (name, sql, ..) in CASES {
        fixture.meddle(&sql.replace('?', &literal(&fixture, organizations[name]))).await;
    }
    let report = fixture.store.audit().verify(None).await.unwrap();
    // Each, and that entries are in no log that holds.
    assert_eq!(report.faults.len(), CASES.len() + 1, "{report:?}");
    assert_eq!(report.faults.last().map(|fault| (fault.log, fault.kind)), Some((AuditLog::All, Missing)));
    for (name, _, kind, sequence) in CASES {
        let fault = report.faults.iter().find(|fault| fault.log == of(organizations[name])).unwrap();
        assert_eq!((fault.kind, fault.sequence), (*kind, *sequence), "{name}");
        let named = matches!(kind, Changed | Removed);
        assert_eq!(fault.id.is_some(), named, "{name}: the entry at fault is named");
    }
    // What the platform writes afterwards makes nothing good again.
    for organization in organizations.values().filter(|id| **id != organizations["moved"]) {
        if *organization != organizations["wound-back"] {
            note(&fixture.store, Some(*organization), "later").await;
        }
    }
    note(&fixture.store, Some(sound), "later").await;
    let report = fixture.store.audit().verify(None).await.unwrap();
    assert!(!report.faults.iter().any(|fault| fault.log == of(sound)));
    for (name, ..) in CASES {
        assert!(report.faults.iter().any(|fault| fault.log == of(organizations[name])), "{name}");
    }
    // Nor does opening the database again.
    let report = fixture.replica().await.audit().verify(None).await.unwrap();
    assert_eq!(report.faults.len(), CASES.len() + 1, "{report:?}");
}

/// Whoever writes the database alone can put a log back to an earlier copy of itself, head and all: it holds, and the numbers do not.
pub async fn a_log_put_back_or_removed_whole_is_found(fixture: Fixture) {
    let (back, gone) = (noted(&fixture, "back").await, noted(&fixture, "gone").await);
    fixture.meddle("CREATE TABLE earlier AS SELECT * FROM audit_heads").await;
    note(&fixture.store, Some(back), "what is to be hidden").await;
    let number = fixture.store.audit().verify(None).await.unwrap().checkpoint.unwrap().number;
    note(&fixture.store, Some(gone), "later").await;
    assert_eq!(fixture.store.audit().verify(None).await.unwrap().faults, []);
    let id = literal(&fixture, back);
    for sql in [
        format!("DELETE FROM audit WHERE organization={id} AND sequence=7"),
        format!("DELETE FROM audit_heads WHERE chain={id}"),
        format!("INSERT INTO audit_heads SELECT * FROM earlier WHERE chain={id}"),
    ] {
        fixture.meddle(&sql).await;
    }
    let missing = |number| AuditFault { log: AuditLog::All, sequence: number, id: None, kind: AuditFaultKind::Missing };
    let faults = async |store: &Store| store.audit().verify(None).await.unwrap().faults;
    assert_eq!(faults(&fixture.store).await, [missing(number)]);
    // What is written later makes nothing good again, nor does opening it anew.
    note(&fixture.store, Some(back), "later").await;
    assert_eq!(faults(&fixture.replica().await).await, [missing(number)]);
    let id = literal(&fixture, gone);
    for (table, column) in [("audit", "organization"), ("audit_heads", "chain"), ("organizations", "id")] {
        fixture.meddle(&format!("DELETE FROM {table} WHERE {column}={id}")).await;
    }
    let found = faults(&fixture.store).await;
    assert_eq!((found.len(), found[0].kind), (1, AuditFaultKind::Missing), "{found:?}");
    assert!(found[0].sequence < number, "{found:?}");
}

pub async fn the_numbers_over_all_logs_are_signed(fixture: Fixture) {
    noted(&fixture, "acme").await;
    let all = "chain=(SELECT max(chain) FROM audit_heads)";
    let all = if fixture.is_sqlite() { all } else { "chain='ffffffff-ffff-ffff-ffff-ffffffffffff'" };
    let fault = async || fixture.store.audit().verify(None).await.unwrap().faults.first().map(|it| (it.log, it.kind));
    assert_eq!(fault().await, None);
    fixture.meddle(&format!("UPDATE audit_heads SET sequence=sequence-1 WHERE {all}")).await;
    assert_eq!(fault().await, Some((AuditLog::All, AuditFaultKind::HeadChanged)));
    fixture.meddle(&format!("UPDATE audit_heads SET sequence=sequence+1 WHERE {all}")).await;
    assert_eq!(fault().await, None);
    fixture.meddle(&format!("DELETE FROM audit_heads WHERE {all}")).await;
    assert_eq!(fault().await, Some((AuditLog::All, AuditFaultKind::HeadRemoved)));
    note(&fixture.replica().await, None, "later").await;
    assert_eq!(fault().await, Some((AuditLog::All, AuditFaultKind::HeadChanged)));
}

/// What nothing inside the database shows: all of it is an earlier copy, which went on from there.
pub async fn a_checkpoint_shows_a_database_put_back(fixture: Fixture) {
    let organization = noted(&fixture, "acme").await;
    let verify = async |known: Option<&AuditCheckpoint>| fixture.store.audit().verify(known).await.unwrap();
    let known = verify(None).await.checkpoint.unwrap();
    let text = known.to_string();
    assert_eq!(text.parse(), Ok(known.clone()));
    note(&fixture.store, Some(organization), "later").await;
    assert_eq!(verify(Some(&known)).await.faults, []);
    // As after an earlier copy had grown to the same number.
    let other = AuditCheckpoint { hash: "0".repeat(64), ..known.clone() };
    let ahead = AuditCheckpoint { number: known.number + 5, ..known.clone() };
    for wrong in [&other, &ahead] {
        let faults = verify(Some(wrong)).await.faults;
        assert_eq!((faults.len(), faults[0].kind, faults[0].sequence), (1, AuditFaultKind::NotGoneOn, wrong.number));
    }
    fixture.store.delete_expired(OffsetDateTime::now_utc() + Duration::days(366)).await.unwrap();
    assert_eq!(verify(Some(&known)).await.faults, [], "its entry was dropped for its age");
    for text in ["", "7", "0:", "x:y", &format!("0:{}", "a".repeat(64)), &format!("7:{}", "A".repeat(64))] {
        assert_eq!(text.parse::<AuditCheckpoint>(), Err(NotACheckpoint), "{text}");
    }
}

/// A log of before the numbers is dropped for its age too, and numbered from its update on.
pub async fn entries_of_before_the_numbers_are_taken_over(fixture: Fixture) {
    let organization = noted(&fixture, "acme").await;
    let keep = fixture.store.audit().list(organization, Page::default()).await.unwrap();
    for sql in [
        "DELETE FROM audit",
        "DELETE FROM audit_heads",
        "DELETE FROM settings WHERE key='audit.key'",
        "DROP INDEX audit_number",
        "ALTER TABLE audit DROP COLUMN number",
        "DROP INDEX audit_organization_sequence",
        "DROP INDEX audit_target",
        "ALTER TABLE audit DROP COLUMN sequence",
        "ALTER TABLE audit DROP COLUMN hash",
        "ALTER TABLE audit DROP COLUMN address",
        "DROP TABLE audit_heads",
        "DELETE FROM seaql_migrations WHERE version IN ('m0014_audit_chain','m0026_audit_numbers')",
    ] {
        fixture.meddle(sql).await;
    }
    let id = literal(&fixture, organization);
    for (place, entry) in keep.iter().rev().enumerate() {
        let uuid = format!("{:032x}", place + 1);
        let uuid = if fixture.is_sqlite() { format!("x'{uuid}'") } else { format!("'{uuid}'") };
        let row = format!("{uuid}, {id}, 'system', '{}', 'x', '{}', 1000", entry.action, entry.detail);
        let columns = "id, organization, actor, action, target, detail, created_at";
        fixture.meddle(&format!("INSERT INTO audit ({columns}) VALUES ({row})")).await;
    }
    let store = fixture.replica().await;
    let log = async || store.audit().list(organization, Page::default()).await.unwrap();
    assert_eq!((store.audit().verify(None).await.unwrap().faults, log().await.len()), (vec![], 7));
    store.delete_expired(OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!((store.audit().verify(None).await.unwrap().faults, log().await.len()), (vec![], 1));
}

pub async fn two_writers_make_one_chain(fixture: Fixture) {
    let (one, two) = (fixture.tenant("one").await.organization, fixture.tenant("two").await.organization);
    let replica = fixture.replica().await;
    let write = |store: Store, word: &'static str| async move {
        for number in 0..25 {
            note(&store, Some(one), &format!("{word} {number}")).await;
            note(&store, Some(two), &format!("{word} {number}")).await;
            note(&store, None, &format!("{word} {number}")).await;
        }
    };
    let writers = [
        tokio::spawn(write(fixture.store.clone(), "a")),
        tokio::spawn(write(replica.clone(), "b")),
        tokio::spawn(write(replica.clone(), "c")),
    ];
    // Whoever writes in several chains at once waits in no circle.
    let user = fixture.tenant("three").await.user;
    for _ in 0..25 {
        let (actor, address) = (Actor::User(user), None);
        let event = UserEvent { user, actor, action: "user.test", detail: "", address };
        replica.audit().record_user(event).await.unwrap();
    }
    for writer in writers {
        soon(writer).await.unwrap();
    }
    let report = replica.audit().verify(None).await.unwrap();
    assert_eq!(report.faults, []);
    let all = fixture.store.audit().list(one, Page::first(1000)).await.unwrap();
    assert_eq!(all.iter().filter(|entry| entry.action == "test.note").count(), 75);
    assert_eq!(all.iter().filter(|entry| entry.action == "user.test").count(), 25);
    let newest: Vec<_> = all.iter().filter(|entry| entry.detail.starts_with("a ")).map(|entry| &entry.detail).collect();
    assert_eq!((newest[0].as_str(), newest[24].as_str()), ("a 24", "a 0"), "each writer's in its order");
}

pub async fn old_entries_go_and_the_rest_still_holds(fixture: Fixture) {
    let organization = noted(&fixture, "acme").await;
    let audit = fixture.store.audit();
    let old = literal(&fixture, organization);
    let later = OffsetDateTime::now_utc() + Duration::days(366);
    fixture.store.delete_expired(later).await.unwrap();
    let left = audit.list(organization, Page::default()).await.unwrap();
    assert_eq!(left.len(), 1, "a log without an entry could be removed unseen: {left:?}");
    assert_eq!(left[0].detail, "all entries of before were dropped for their age");
    assert_eq!(audit.verify(None).await.unwrap().faults, []);
    for number in 0..3 {
        note(&fixture.store, Some(organization), &number.to_string()).await;
    }
    assert_eq!(audit.verify(None).await.unwrap().faults, []);
    // The entries that are gone by their age end at the place that the head names, and nowhere else.
    fixture.meddle(&format!("DELETE FROM audit WHERE organization={old} AND sequence=7")).await;
    let fault = audit.verify(None).await.unwrap().faults[0].clone();
    assert_eq!((fault.kind, fault.sequence), (AuditFaultKind::Removed, 8));
}

/// Retention believes no date of an entry that is not as it was written.
pub async fn what_was_changed_is_not_dropped_for_its_age(fixture: Fixture) {
    let organization = noted(&fixture, "acme").await;
    let old = literal(&fixture, organization);
    fixture.meddle(&format!("UPDATE audit SET created_at=1000 WHERE organization={old} AND sequence IN (1,4)")).await;
    let fault = || async { fixture.store.audit().verify(None).await.unwrap().faults.first().map(|fault| fault.kind) };
    assert_eq!(fault().await, Some(AuditFaultKind::Changed));
    fixture.store.delete_expired(OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(fixture.store.audit().list(organization, Page::default()).await.unwrap().len(), 6);
    note(&fixture.store, Some(organization), "later").await;
    assert!(fault().await.is_some());
}

/// Whoever takes the signing key away gets no log that is signed anew.
pub async fn without_its_key_the_log_is_not_begun_again(fixture: Fixture) {
    let organization = noted(&fixture, "acme").await;
    let old = literal(&fixture, organization);
    for sql in [
        "DELETE FROM settings WHERE key='audit.key'",
        "UPDATE audit_heads SET mac=''",
        &format!("DELETE FROM audit WHERE organization={old}"),
        &format!("UPDATE audit_heads SET sequence=0, hash='', first=1, first_hash='' WHERE chain={old}"),
    ] {
        fixture.meddle(sql).await;
    }
    let store = fixture.replica().await;
    note(&store, Some(organization), "later").await;
    let report = store.audit().verify(None).await.unwrap();
    assert!(report.faults.iter().any(|fault| fault.log == of(organization)), "{report:?}");
    // Each chain's, and the numbers'.
    assert_eq!(report.faults.len() as u64, report.chains + 1);
}

pub async fn entries_are_found_by_what_they_say(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let cluster = tenant.cluster("demo").await;
    let project = NewProject {
        organization: tenant.organization,
        name: "blue".parse().unwrap(),
        display_name: "Blue\u{1b}[2J".to_owned(),
        actor: Actor::System,
    };
    fixture.store.identity().create_project(project).await.unwrap();
    let find = async |filter: AuditFilter| -> Vec<String> {
        let found = fixture.store.audit().find(Some(tenant.organization), &filter, Page::default()).await.unwrap();
        found.into_iter().map(|entry| entry.action).collect()
    };
    let none = AuditFilter::default;
    assert_eq!(
        find(none()).await,
        ["project.create", "cluster.create", "organization.create", "audit.begin"],
        "the newest first"
    );
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(find(AuditFilter { action: some("cluster"), ..none() }).await, ["cluster.create"]);
    assert_eq!(find(AuditFilter { action: some("cluster.create"), ..none() }).await, ["cluster.create"]);
    assert_eq!(find(AuditFilter { action: some("clust"), ..none() }).await, Vec::<String>::new());
    assert_eq!(find(AuditFilter { actor: some("system"), ..none() }).await, ["project.create", "audit.begin"]);
    assert_eq!(find(AuditFilter { target: Some(cluster.id.to_string()), ..none() }).await, ["cluster.create"]);
    let hour = Duration::hours(1);
    let now = OffsetDateTime::now_utc();
    assert_eq!(find(AuditFilter { since: Some(now + hour), ..none() }).await, Vec::<String>::new());
    assert_eq!(find(AuditFilter { since: Some(now - hour), until: Some(now + hour), ..none() }).await.len(), 4);
    assert_eq!(find(AuditFilter { until: Some(now - hour), ..none() }).await, Vec::<String>::new());
    let other = fixture.tenant("other").await;
    let all = fixture.store.audit().find(Some(other.organization), &none(), Page::default()).await.unwrap();
    assert_eq!(all.len(), 2, "another organization's");
}

pub async fn what_repeats_is_written_rarely(fixture: Fixture) {
    let tenant = fixture.tenant("acme").await;
    let audit = fixture.store.audit();
    let new = NewAudit {
        organization: Some(tenant.organization),
        actor: Actor::System,
        action: "node.renew",
        target: "nod_1",
        detail: "line\u{7}",
    };
    for _ in 0..3 {
        audit.record_rarely(new, Duration::minutes(10)).await.unwrap();
    }
    audit.record_rarely(NewAudit { target: "nod_2", ..new }, Duration::minutes(10)).await.unwrap();
    let filter = AuditFilter { action: Some("node.renew".to_owned()), ..AuditFilter::default() };
    let found = audit.find(Some(tenant.organization), &filter, Page::default()).await.unwrap();
    let found: Vec<_> = found.iter().map(|entry| (entry.target.as_str(), entry.detail.as_str())).collect();
    assert_eq!(found, [("nod_2", "line"), ("nod_1", "line")]);
}

pub async fn entries_of_before_the_chain_are_taken_over(fixture: Fixture) {
    let organization = noted(&fixture, "acme").await;
    for sql in [
        "DROP TABLE audit_heads",
        "DROP INDEX audit_number",
        "ALTER TABLE audit DROP COLUMN number",
        "DROP INDEX audit_organization_sequence",
        "DROP INDEX audit_target",
        "ALTER TABLE audit DROP COLUMN sequence",
        "ALTER TABLE audit DROP COLUMN hash",
        "ALTER TABLE audit DROP COLUMN address",
        "DELETE FROM seaql_migrations WHERE version IN ('m0014_audit_chain','m0026_audit_numbers')",
    ] {
        fixture.meddle(sql).await;
    }
    let store = fixture.replica().await;
    let report = store.audit().verify(None).await.unwrap();
    assert_eq!(report.faults, []);
    let newest = store.audit().list(organization, Page::first(1)).await.unwrap();
    assert_eq!(newest[0].detail, "6 entries of before were chained as they were found");
    note(&store, Some(organization), "later").await;
    assert_eq!(store.audit().verify(None).await.unwrap().faults, []);
    assert_eq!(store.audit().list(organization, Page::default()).await.unwrap().len(), 8);
}
