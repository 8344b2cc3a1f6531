//! What certificates promise, read back by another parser than the one that wrote them.
#![expect(clippy::disallowed_methods, reason = "tests bring the randomness")]

use std::net::IpAddr;

use rcgen::{CertificateParams, KeyPair};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::*;
use crate::id::{ClusterId, KubeconfigId, NodeId};
use crate::name::NodeName;
use crate::spec::ClusterSpec;
use crate::status::AccessRole;
use crate::version::KubernetesVersion;

const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

struct Keys;

impl KeySource for Keys {
    fn key_pair(&self) -> Result<KeyPair, PkiError> {
        KeyPair::generate().map_err(PkiError::Key)
    }

    fn bytes32(&self) -> Result<[u8; 32], PkiError> {
        Ok([7; 32])
    }
}

fn cluster() -> ClusterId {
    ClusterId::from_uuid(Uuid::from_u128(1))
}

fn pki() -> ClusterPki {
    let spec = ClusterSpec::new(KubernetesVersion::default());
    ClusterPki::generate(&PkiContext::new(cluster(), "pilothouse.internal", &spec), NOW, &Keys).unwrap()
}

fn with_cert<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    read(&pem.parse_x509().unwrap())
}

fn signed_by(leaf: &str, ca: &str) -> bool {
    with_cert(leaf, |leaf| with_cert(ca, |ca| leaf.verify_signature(Some(ca.public_key())).is_ok()))
}

fn sans(pem: &str) -> (Vec<String>, Vec<IpAddr>) {
    with_cert(pem, |cert| {
        let mut found = (Vec::new(), Vec::new());
        let Some(extension) = cert.subject_alternative_name().unwrap() else { return found };
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => found.0.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => found.1.push(IpAddr::from(<[u8; 4]>::try_from(*bytes).unwrap())),
                other => panic!("unexpected name {other:?}"),
            }
        }
        found
    })
}

fn subject_of(pem: &str) -> String {
    with_cert(pem, |cert| cert.subject().to_string())
}

#[test]
fn six_separate_cas_that_sign_no_further_cas() {
    let pki = pki();
    let mut names: Vec<String> = CaKind::ALL.iter().map(|kind| subject_of(&pki.ca(*kind).current.cert_pem)).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 6);
    for kind in CaKind::ALL {
        with_cert(&pki.ca(kind).current.cert_pem, |cert| {
            let constraints = cert.basic_constraints().unwrap().unwrap().value;
            assert!(constraints.ca && constraints.path_len_constraint == Some(0));
            assert!(cert.key_usage().unwrap().unwrap().value.key_cert_sign());
            assert_eq!(cert.validity().not_before.to_datetime(), NOW - Duration::minutes(5));
            assert_eq!(cert.validity().not_after.to_datetime(), NOW + Duration::days(3650));
        });
    }
}

#[test]
fn each_leaf_is_vouched_for_by_its_ca_and_no_other() {
    let pki = pki();
    for kind in LeafKind::ALL {
        for ca in CaKind::ALL {
            let vouched = signed_by(pki.cert(kind), &pki.ca(ca).current.cert_pem);
            assert_eq!(vouched, ca == kind.signed_by(), "{kind:?} by {ca:?}");
        }
        with_cert(pki.cert(kind), |cert| assert!(!cert.is_ca()));
    }
}

#[test]
fn the_api_server_answers_to_its_names() {
    let (names, addresses) = sans(pki().cert(LeafKind::ApiServing));
    let label = cluster().suffix();
    for name in [
        &format!("{label}.api.pilothouse.internal"),
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        &format!("control-plane.ph-{label}.svc"),
    ] {
        assert!(names.iter().any(|known| known == name), "{name} missing of {names:?}");
    }
    for address in ["127.0.0.1", "10.96.0.1", "198.18.0.1"] {
        assert!(addresses.contains(&address.parse().unwrap()), "{address} missing of {addresses:?}");
    }
}

#[test]
fn leaves_name_whom_they_should() {
    let pki = pki();
    assert_eq!(subject_of(pki.cert(LeafKind::Egress)), format!("O=egress, CN={}", cluster()));
    assert_eq!(subject_of(pki.cert(LeafKind::Scheduler)), "CN=system:kube-scheduler");
    let masters = LeafKind::ALL.iter().filter(|kind| subject_of(pki.cert(**kind)).contains("system:masters")).count();
    assert_eq!(masters, 0);
}

#[test]
fn first_access_is_short_and_later_access_has_its_own_group() {
    let pki = pki();
    let first = provisioner_access(&pki, NOW, &Keys).unwrap();
    assert_eq!(subject_of(&first.cert_pem), "O=system:masters, CN=pilothouse:provisioner");
    with_cert(&first.cert_pem, |cert| {
        assert_eq!(cert.validity().not_after.to_datetime(), NOW + Duration::minutes(10));
    });
    let later = platform_access(&pki, NOW, &Keys).unwrap();
    assert_eq!(subject_of(&later.cert_pem), "O=pilothouse:platform, CN=pilothouse:provisioner");
}

/// A request that asks for the moon: another user, a group of masters, a CA's powers and foreign names.
fn greedy_csr(key: &KeyPair) -> String {
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "admin");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.serialize_request(key).unwrap().pem().unwrap()
}

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let (pki, key) = (pki(), KeyPair::generate().unwrap());
    let node = NodeName::parse("web-1").unwrap();
    let subject = kubelet_serving(&node, &["192.0.2.7".parse().unwrap()]);
    let validity = Validity::from_now(NOW, Duration::days(30));
    let cert = sign_csr(&pki.kubelet.current, &greedy_csr(&key), &subject, validity).unwrap();
    assert_eq!(subject_of(&cert), "O=system:nodes, CN=system:node:web-1");
    assert_eq!(sans(&cert), (vec!["web-1".to_owned()], vec!["192.0.2.7".parse().unwrap()]));
    assert!(signed_by(&cert, &pki.kubelet.current.cert_pem));
    with_cert(&cert, |cert| {
        assert!(!cert.is_ca() && !cert.key_usage().unwrap().unwrap().value.key_cert_sign());
        let purposes = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && !purposes.client_auth);
        assert_eq!(cert.public_key().subject_public_key.data, key.public_key_raw());
    });
}

#[test]
fn link_certificates_name_node_cluster_and_role() {
    let node = NodeId::from_uuid(Uuid::from_u128(9));
    let (pki, key) = (pki(), KeyPair::generate().unwrap());
    let validity = Validity::from_now(NOW, Duration::days(30));
    let cert = sign_csr(&pki.link.current, &greedy_csr(&key), &link_node(cluster(), node), validity).unwrap();
    assert_eq!(subject_of(&cert), format!("O={}, OU=node, CN={node}", cluster()));
}

#[test]
fn bad_requests_are_refused() {
    let pki = pki();
    let validity = Validity::from_now(NOW, Duration::days(30));
    let sign = |csr: &str| sign_csr(&pki.link.current, csr, &kube_proxy(), validity);
    assert!(matches!(sign("nonsense"), Err(PkiError::Csr(_))));
    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    assert!(matches!(sign(&greedy_csr(&p384)), Err(PkiError::CsrKey)));
    let good = greedy_csr(&KeyPair::generate().unwrap());
    let (_, parsed) = x509_parser::pem::parse_x509_pem(good.as_bytes()).unwrap();
    let mut der = parsed.contents;
    let last = der.len() - 1;
    der[last] ^= 1;
    let broken = x509_parser::prelude::Pem { label: "CERTIFICATE REQUEST".to_owned(), contents: der };
    assert!(matches!(sign(&to_pem(&broken.label, &broken.contents)), Err(PkiError::Csr(_))));
}

fn to_pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[test]
fn no_leaf_outlives_its_ca() {
    let pki = pki();
    let late = Validity::from_now(NOW, Duration::days(9999));
    let leaf = issue(&pki.client.current, &kube_proxy(), late, &Keys).unwrap();
    with_cert(&leaf.cert_pem, |cert| {
        assert_eq!(cert.validity().not_after.to_datetime(), NOW + Duration::days(3650));
    });
}

#[test]
fn serials_differ_for_one_key_at_two_times() {
    let key = KeyPair::generate().unwrap();
    let pki = pki();
    let serial = |now| {
        let validity = Validity::from_now(now, Duration::days(30));
        let cert = sign_csr(&pki.client.current, &greedy_csr(&key), &kube_proxy(), validity).unwrap();
        with_cert(&cert, |cert| cert.raw_serial().to_vec())
    };
    assert_eq!(serial(NOW).len(), 16);
    assert_eq!(serial(NOW), serial(NOW));
    assert_ne!(serial(NOW), serial(NOW + Duration::seconds(1)));
}

#[test]
fn secrets_survive_storage_and_stay_out_of_debug() {
    let pki = pki();
    let json = pki.to_secret_json().unwrap();
    assert_eq!(ClusterPki::from_secret_json(&json).unwrap(), pki);
    assert!(matches!(ClusterPki::from_secret_json("{}"), Err(PkiError::Stored(_))));
    let shown = format!("{pki:?} {:?} {:?}", pki.serving, pki.leaves);
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
}

#[test]
fn leaves_are_renewed_under_the_same_cas() {
    let (mut pki, old) = (pki(), pki());
    let spec = ClusterSpec::new(KubernetesVersion::default());
    let extra = ["100.64.0.9".parse().unwrap()];
    let context = PkiContext { extra_ips: &extra, ..PkiContext::new(cluster(), "pilothouse.internal", &spec) };
    let before = pki.clone();
    pki.renew_leaves(&context, NOW + Duration::days(300), &Keys).unwrap();
    assert_eq!(pki.serving, before.serving);
    assert_ne!(pki.serving, old.serving);
    assert!(sans(pki.cert(LeafKind::ApiServing)).1.contains(&extra[0]));
    assert!(sans(pki.cert(LeafKind::EtcdServing)).1.contains(&extra[0]));
}

#[test]
fn leaves_are_due_after_two_thirds_of_their_life() {
    let spec = ClusterSpec::new(KubernetesVersion::default());
    let context = PkiContext::new(cluster(), "pilothouse.internal", &spec);
    let mut pki = pki();
    let due = |pki: &ClusterPki, days| pki.due(&context, NOW + Duration::days(days)).unwrap();
    assert_eq!((due(&pki, 0), due(&pki, 243)), (None, None));
    assert_eq!(due(&pki, 244), Some((LeafKind::ApiServing, Cause::Age)));
    assert_eq!(due(&pki, -400), None, "a clock that went back renews nothing");
    assert_eq!(pki.earliest_end(), Some(NOW + Duration::days(365)));
    pki.renew_leaves(&context, NOW + Duration::days(244), &Keys).unwrap();
    assert_eq!((due(&pki, 244), due(&pki, 480)), (None, None));
    assert_eq!(pki.earliest_end(), Some(NOW + Duration::days(244 + 365)));
}

#[test]
fn leaves_are_due_when_names_authority_or_the_leaf_itself_differ() {
    let spec = ClusterSpec::new(KubernetesVersion::default());
    let context = PkiContext::new(cluster(), "pilothouse.internal", &spec);
    let pki = pki();
    let due = |pki: &ClusterPki, context: &PkiContext<'_>| pki.due(context, NOW).unwrap();
    let moved = PkiContext { domain: "elsewhere.example", ..context.clone() };
    assert_eq!(due(&pki, &moved), Some((LeafKind::ApiServing, Cause::Names)));
    let extra = ["2001:db8::1".parse().unwrap()];
    let wider = PkiContext { extra_ips: &extra, ..context.clone() };
    assert_eq!(due(&pki, &wider), Some((LeafKind::ApiServing, Cause::Names)));
    let mut wide = pki.clone();
    wide.renew_leaves(&wider, NOW, &Keys).unwrap();
    assert_eq!(due(&wide, &wider), None);
    let mut missing = pki.clone();
    missing.leaves.remove(&LeafKind::Egress);
    assert_eq!(due(&missing, &context), Some((LeafKind::Egress, Cause::Missing)));
    assert_eq!(missing.earliest_end(), None, "what cannot be read has no known end");
    let rotated = ClusterPki { front_proxy: CaBundle::new(Ca::generate("new", NOW, &Keys).unwrap()), ..pki };
    assert_eq!(due(&rotated, &context), Some((LeafKind::FrontProxyClient, Cause::Issuer)));
}

#[test]
fn a_leaf_that_ends_with_its_authority_is_left_alone() {
    let spec = ClusterSpec::new(KubernetesVersion::default());
    let context = PkiContext::new(cluster(), "pilothouse.internal", &spec);
    let mut pki = pki();
    pki.renew_leaves(&context, NOW + Duration::days(3600), &Keys).unwrap();
    assert_eq!(pki.earliest_end(), Some(NOW + Duration::days(3650)));
    assert_eq!(pki.due(&context, NOW + Duration::days(3649)).unwrap(), None);
    assert_eq!(pki.due(&context, NOW + Duration::days(3651)).unwrap(), None);
}

#[test]
fn the_gateway_shows_names_of_its_domain_and_given_addresses() {
    let addresses = ["192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    let names = PlatformNames { domain: "pilothouse.internal", names: &["portal.example".to_owned()], ips: &addresses };
    let platform = PlatformPki::generate(&names, NOW, &Keys).unwrap();
    let (dns, ips) = sans(&platform.server.cert_pem);
    for name in [
        "link.pilothouse.internal",
        "*.link.pilothouse.internal",
        "*.egress.pilothouse.internal",
        "*.gateway.pilothouse.internal",
        "portal.example",
    ] {
        assert!(dns.iter().any(|known| known == name), "{name} missing of {dns:?}");
    }
    assert_eq!(ips, addresses);
    let renewed = platform.with_new_server(&names, NOW + Duration::days(9), &Keys).unwrap();
    assert_eq!(renewed.ca, platform.ca);
    assert!(signed_by(&renewed.server.cert_pem, &platform.ca.current.cert_pem));
    let json = platform.to_secret_json().unwrap();
    assert_eq!(PlatformPki::from_secret_json(&json).unwrap(), platform);
}

fn kubeconfig_credential() -> (KubeconfigId, Ca, Leaf) {
    let id = KubeconfigId::from_uuid(Uuid::from_u128(9));
    let authority = generate_kubeconfig_authority(id, NOW, &Keys).unwrap();
    let subject = KubeconfigSubject { kubeconfig: id, role: AccessRole::Edit, not_after: NOW + Duration::days(395) };
    // Its authority was made a month before.
    let leaf = issue_kubeconfig_leaf(&authority, subject, NOW + Duration::days(30), &Keys).unwrap();
    (id, authority, leaf)
}

#[test]
fn each_file_kubeconfig_has_an_authority_of_its_own() {
    let (id, made, signed) = kubeconfig_credential();
    let (authority, leaf) = (&made.cert_pem, &signed.cert_pem);
    assert!(signed_by(leaf, authority) && signed_by(authority, authority));
    assert!(!signed_by(leaf, &pki().client.current.cert_pem), "the cluster's own authority has no part in it");
    assert_eq!(subject_of(authority), format!("CN=pilothouse kubeconfig {id}"));
    assert_eq!(subject_of(leaf), format!("O=pilothouse:role:edit, CN=pilothouse:kubeconfig:{id}"));
    for (pem, days) in [(authority, 400), (leaf, 395)] {
        with_cert(pem, |cert| assert_eq!(cert.validity().not_after.to_datetime(), NOW + Duration::days(days)));
    }
    with_cert(authority, |cert| {
        let constraints = cert.basic_constraints().unwrap().unwrap().value;
        assert!(constraints.ca && constraints.path_len_constraint == Some(0));
        let names = cert.name_constraints().unwrap().unwrap().value;
        let excluded: Vec<_> = names.excluded_subtrees.iter().flatten().map(|subtree| &subtree.base).collect();
        let all = [GeneralName::DNSName(""), GeneralName::IPAddress(&[0; 8]), GeneralName::IPAddress(&[0; 32])];
        assert_eq!(excluded, all.iter().collect::<Vec<_>>(), "it vouches for no server");
    });
    assert!(!format!("{made:?} {signed:?}").contains("PRIVATE KEY"));
    assert!(!authority.contains("PRIVATE KEY"), "its certificate goes without its key");
}

#[test]
fn the_bundle_is_the_base_and_the_living_in_one_order() {
    let base = CaBundle { previous: Some("<old>\n".to_owned()), ..pki().client };
    let id = |number: u128| KubeconfigId::from_uuid(Uuid::from_u128(number));
    let one = KubeconfigAuthorities::from([(id(2), "<two>\n".to_owned()), (id(1), "<one>\n".to_owned())]);
    assert_eq!(client_trust_pem(&base, &one), format!("{}<one>\n<two>\n", base.trust_pem()));
    assert_eq!(client_trust_pem(&base, &KubeconfigAuthorities::new()), base.trust_pem());
}

#[test]
fn an_authority_is_told_by_its_subject() {
    let (_, authority, _) = kubeconfig_credential();
    let subject = subject_der(&authority.cert_pem).unwrap();
    assert_ne!(subject_der(&pki().client.current.cert_pem), Some(subject));
    assert_eq!(subject_der("nonsense"), None);
}
