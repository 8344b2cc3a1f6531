//! Golden manifests, with words in place of certificates: rendering only moves text, so words show best where each goes.

use serde_json::json;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::*;
use crate::id::KubeconfigId;
use crate::pki::{Ca, CaBundle, LeafKind};
use crate::version::KubernetesVersion;

fn ca(name: &str) -> CaBundle {
    let key_pem = Zeroizing::new(format!("<{name} CA key>\n"));
    CaBundle::new(Ca { cert_pem: format!("<{name} CA>\n"), key_pem })
}

fn pki() -> ClusterPki {
    let leaf = |kind: LeafKind| {
        let key_pem = Zeroizing::new(format!("<{kind:?} key>\n"));
        (kind, crate::pki::Leaf { cert_pem: format!("<{kind:?} certificate>\n"), key_pem })
    };
    ClusterPki {
        serving: ca("serving"),
        client: ca("client"),
        kubelet: ca("kubelet"),
        front_proxy: ca("front proxy"),
        etcd: ca("etcd"),
        link: ca("link"),
        sa_key_pem: Zeroizing::new("<service account key>\n".to_owned()),
        sa_public_pem: "<service account public key>\n".to_owned(),
        encryption_key: Zeroizing::new([7; 32]),
        leaves: LeafKind::ALL.into_iter().map(leaf).collect(),
    }
}

fn placement() -> Placement {
    let image = |name: &str, version: &str| format!("registry.pilothouse.internal/{name}:{version}");
    Placement {
        domain: "pilothouse.internal".to_owned(),
        gateway_ip: [100, 64, 192, 1].into(),
        gateway_port: 8443,
        advertised: "192.0.2.1:8443".to_owned(),
        platform_ca_pem: "<platform CA>\n".to_owned(),
        storage_class: Some("local-path".to_owned()),
        images: Images {
            apiserver: image("kube-apiserver", "v1"),
            controller_manager: image("kube-controller-manager", "v1"),
            scheduler: image("kube-scheduler", "v1"),
            etcd: image("etcd", "v3"),
        },
        pull_policy: PullPolicy::Never,
        fsync: true,
        etcd_ip: Some([100, 64, 128, 7].into()),
    }
}

const USER: u32 = 1_879_100_007;

fn rendered(version: &str, change: impl FnOnce(&mut ClusterSpec, &mut Placement, &mut ClusterPki)) -> Manifests {
    let mut spec = ClusterSpec::new(KubernetesVersion::parse(version).unwrap());
    let (mut placement, mut pki) = (placement(), pki());
    change(&mut spec, &mut placement, &mut pki);
    let (cluster, name) = (ClusterId::from_uuid(Uuid::from_u128(42)), ClusterName::parse("demo").unwrap());
    let authorities = authorities(&[7]);
    let (pki, authorities) = (&pki, &authorities);
    let (removed, placement) = (&RemovedNodes::new(), &placement);
    render(&RenderInput { cluster, name: &name, spec: &spec, pki, authorities, removed, user: USER, placement })
}

fn authorities(kubeconfigs: &[u128]) -> KubeconfigAuthorities {
    let id = |number: u128| KubeconfigId::from_uuid(Uuid::from_u128(number));
    kubeconfigs.iter().map(|number| (id(*number), format!("<authority of kubeconfig {number}>\n"))).collect()
}

/// Secrets' data as text, so that a person can read the golden file.
fn readable(manifests: Manifests) -> Vec<Value> {
    use base64::Engine;
    let text = |value: &Value| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
        Value::from(String::from_utf8(bytes).unwrap())
    };
    let mut objects = manifests.objects;
    for object in objects.iter_mut().filter(|object| object["kind"] == "Secret") {
        for value in object["data"].as_object_mut().unwrap().values_mut() {
            *value = text(value);
        }
    }
    objects
}

fn golden(version: &str) {
    let objects = readable(rendered(version, |_, _, _| {}));
    insta::with_settings!({sort_maps => true, snapshot_path => "../snapshots"}, {
        insta::assert_yaml_snapshot!(format!("control-plane-{version}"), objects);
    });
}

#[test]
fn golden_1_36_3() {
    golden("1.36.3");
}

#[test]
fn golden_1_35_4() {
    golden("1.35.4");
}

/// Each pod, each container of it, and the files it is given.
#[test]
fn everything_runs_as_the_clusters_own_user() {
    let manifests = rendered("1.36.3", |_, _, _| {});
    for owner in manifests.workloads() {
        let pod = &owner["spec"]["template"]["spec"];
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(pod["securityContext"][field], USER, "{}", owner["kind"]);
        }
        let containers = ["containers", "initContainers"].map(|kind| pod[kind].as_array().cloned().unwrap_or_default());
        for container in containers.iter().flatten() {
            assert!(container["securityContext"].get("runAsUser").is_none(), "the pod's counts: {}", container["name"]);
        }
    }
}

#[test]
fn rendering_twice_gives_the_same() {
    let text = |manifests: Manifests| serde_json::to_string(&manifests.objects).unwrap();
    assert_eq!(text(rendered("1.36.3", |_, _, _| {})), text(rendered("1.36.3", |_, _, _| {})));
}

#[test]
fn every_object_is_whole_and_labelled() {
    let manifests = rendered("1.36.3", |_, _, _| {});
    assert_eq!(manifests.objects[0]["kind"], "Namespace");
    for object in &manifests.objects {
        assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{object}");
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels[MANAGED_BY_LABEL], "pilothouse");
        assert_eq!(labels[CLUSTER_LABEL], ClusterId::from_uuid(Uuid::from_u128(42)).to_string().as_str());
        assert!(object["kind"] == "Namespace" || object["metadata"]["namespace"].is_string(), "{object}");
    }
}

#[test]
fn only_the_control_plane_depends_on_etcds_address() {
    let (before, after) =
        (rendered("1.36.3", |_, placement, _| placement.etcd_ip = None), rendered("1.36.3", |_, _, _| {}));
    assert_eq!(before.foundation(), after.foundation());
    assert_eq!(before.workloads()[0], after.workloads()[0]);
    let pod = |manifests: &Manifests| manifests.workloads()[1]["spec"]["template"]["spec"].clone();
    assert_eq!(pod(&before)["dnsPolicy"], "ClusterFirst");
    assert_eq!(pod(&after)["hostAliases"][0]["ip"], "100.64.128.7");
    assert_eq!(pod(&before)["hostAliases"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_rendered_is_pruned_unless_it_holds_data() {
    let kept = ["Namespace", "PersistentVolumeClaim", "StatefulSet"];
    for object in rendered("1.36.3", |_, _, _| {}).objects {
        let kind = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        assert_ne!(PRUNED.contains(&kind), kept.contains(&kind.1), "{kind:?}");
    }
    assert!(PRUNED.iter().all(|(_, kind)| !kept.contains(kind)));
}

#[test]
fn whoever_adds_an_object_raises_the_number_of_the_rendering() {
    let name = |object: &Value| {
        format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    let manifests = rendered("1.36.3", |_, _, _| {});
    let names: Vec<_> = manifests.objects.iter().map(name).collect();
    let namespace = sni::namespace(ClusterId::from_uuid(Uuid::from_u128(42)));
    let known = [
        &format!("Namespace {namespace}"),
        "ServiceAccount control-plane",
        "Service etcd",
        "NetworkPolicy default-deny",
        "NetworkPolicy etcd",
        "NetworkPolicy control-plane",
        "Secret kube-apiserver",
        "Secret kube-controller-manager",
        "Secret kube-scheduler",
        "Secret etcd",
        "Secret client-authorities",
        "PersistentVolumeClaim data-etcd-0",
        "StatefulSet etcd",
        "Deployment control-plane",
    ];
    assert_eq!((RENDERING, names.as_slice()), (2, known.map(str::to_owned).as_slice()));
    assert!(manifests.objects.iter().all(|object| object["metadata"]["annotations"][RENDERING_ANNOTATION] == "2"));
}

/// A pod's programs in the order in which they start: sidecars, then containers.
fn programs(workload: &Value) -> Vec<Value> {
    let pod = &workload["spec"]["template"]["spec"];
    let all = ["initContainers", "containers"].map(|list| pod[list].as_array().cloned().unwrap_or_default());
    all.concat()
}

fn program(manifests: &Manifests, name: &str) -> Value {
    programs(&manifests.workloads()[1]).into_iter().find(|program| program["name"] == name).unwrap()
}

#[test]
fn the_others_start_when_the_api_server_is_ready_and_end_before_it() {
    let manifests = rendered("1.36.3", |_, _, _| {});
    let names: Vec<Value> = programs(&manifests.workloads()[1]).iter().map(|program| program["name"].clone()).collect();
    assert_eq!(names, [apiserver::NAME, controller_manager::NAME, scheduler::NAME]);
    let sidecar = program(&manifests, apiserver::NAME);
    assert_eq!(manifests.workloads()[1]["spec"]["template"]["spec"]["initContainers"], json!([sidecar]));
    assert_eq!(
        (&sidecar["restartPolicy"], &sidecar["startupProbe"]["httpGet"]["path"]),
        (&json!("Always"), &json!("/readyz"))
    );
}

#[test]
fn a_program_collects_its_garbage_before_it_is_ended() {
    for workload in rendered("1.36.3", |_, _, _| {}).workloads() {
        for container in programs(workload) {
            let number =
                |text: &Value, unit: &str| -> u32 { text.as_str().unwrap().trim_end_matches(unit).parse().unwrap() };
            let limit = number(&container["resources"]["limits"]["memory"], "Mi");
            let variables = container["env"].as_array().unwrap();
            let soft = variables.iter().find(|variable| variable["name"] == "GOMEMLIMIT").unwrap();
            let soft = number(&soft["value"], "MiB");
            assert!(soft < limit && soft > limit / 10 * 8, "{soft} of {limit}");
        }
    }
}

#[test]
fn control_planes_are_not_the_first_to_go() {
    let shared = shared();
    for workload in rendered("1.36.3", |_, _, _| {}).workloads() {
        assert_eq!(workload["spec"]["template"]["spec"]["priorityClassName"], shared["metadata"]["name"]);
    }
    assert_eq!((&shared["kind"], &shared["preemptionPolicy"]), (&"PriorityClass".into(), &"Never".into()));
}

fn annotation(manifests: &Manifests, workload: usize) -> String {
    manifests.workloads()[workload]["spec"]["template"]["metadata"]["annotations"][CHECKSUM_ANNOTATION].to_string()
}

#[test]
fn a_changed_file_rolls_the_pods_that_read_it() {
    let before = rendered("1.36.3", |_, _, _| {});
    let api = rendered("1.36.3", |_, _, pki| pki.kubelet.previous = Some("<old kubelet CA>\n".to_owned()));
    assert_ne!(annotation(&before, 1), annotation(&api, 1));
    assert_eq!(annotation(&before, 0), annotation(&api, 0));
    let etcd = rendered("1.36.3", |_, _, pki| pki.etcd.previous = Some("<old etcd CA>\n".to_owned()));
    assert_ne!(annotation(&before, 0), annotation(&etcd, 0));
}

#[test]
fn a_kubeconfig_comes_and_goes_without_a_restart() {
    let with = |kubeconfigs: &[u128]| {
        let removed = &RemovedNodes::new();
        let (placement, pki, authorities) = (placement(), pki(), authorities(kubeconfigs));
        let spec = ClusterSpec::new(KubernetesVersion::default());
        let (cluster, name) = (ClusterId::from_uuid(Uuid::from_u128(42)), ClusterName::parse("demo").unwrap());
        let (pki, authorities, placement) = (&pki, &authorities, &placement);
        let input = RenderInput { cluster, name: &name, spec: &spec, pki, authorities, removed, user: USER, placement };
        (render(&input), client_authorities(&input))
    };
    let ((none, bare), (two, both)) = (with(&[]), with(&[9, 7]));
    assert_eq!((&both, &with(&[7, 9]).1), (&two.objects[10], &both), "the order does not depend on who came first");
    let different = none.objects.iter().zip(&two.objects).filter(|(one, other)| one != other);
    assert_eq!(different.collect::<Vec<_>>(), [(&bare, &both)], "nothing else changes, so nothing restarts");
    let bundle = readable(two)[10]["data"]["client-ca.crt"].clone();
    assert_eq!(bundle, "<client CA>\n<authority of kubeconfig 7>\n<authority of kubeconfig 9>\n");
}

#[test]
fn a_removed_node_is_refused_without_a_restart() {
    let with = |names: &[&str]| {
        let removed = &names.iter().map(|name| (*name).to_owned()).collect();
        let (placement, pki, authorities) = (&placement(), &pki(), &authorities(&[]));
        let spec = ClusterSpec::new(KubernetesVersion::default());
        let (cluster, name) = (ClusterId::from_uuid(Uuid::from_u128(42)), ClusterName::parse("demo").unwrap());
        render(&RenderInput { cluster, name: &name, spec: &spec, pki, authorities, removed, user: USER, placement })
    };
    let (none, two, many) = (with(&[]), with(&["web-1", "web-2"]), (0..1001).map(|n| format!("{n:a>63}")));
    let many = with(&many.collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>());
    let different = none.objects.iter().zip(&two.objects).filter(|(one, other)| one != other);
    let different: Vec<_> = different.map(|(_, other)| other["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(different, [CLIENT_AUTHORITIES], "nothing else changes, so nothing restarts");
    let config = |manifests| -> Value {
        serde_json::from_str(readable(manifests)[10]["data"]["authorization.json"].as_str().unwrap()).unwrap()
    };
    let types = |config: &Value| -> Vec<String> {
        config["authorizers"].as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types(&config(none)), ["Webhook", "Node", "RBAC"], "of removed nodes none");
    let refusing = config(two);
    assert_eq!(types(&refusing), ["Webhook", "Webhook", "Node", "RBAC"], "before anything may allow");
    let webhook = &refusing["authorizers"][0]["webhook"];
    assert_eq!(webhook["failurePolicy"], "Deny");
    let named = "request.user in [\"system:node:web-1\",\"pilothouse:kube-proxy:web-1\",\"system:node:web-2\",\"pilothouse:kube-proxy:web-2\"]";
    assert_eq!(webhook["matchConditions"][0]["expression"], named);
    let many = config(many);
    assert_eq!(types(&many), ["Webhook", "Webhook", "Webhook", "Webhook", "Node", "RBAC"]);
    let longest = many["authorizers"][0]["webhook"]["matchConditions"][0]["expression"].as_str().unwrap();
    assert!(longest.len() < 100_000, "of a longer expression nothing is parsed: {}", longest.len());
}

#[test]
fn role_edit_is_refused_the_secrets_of_kubernetes_namespaces() {
    let config = readable(rendered("1.36.3", |_, _, _| {}))[10]["data"]["authorization.json"].clone();
    let config: Value = serde_json::from_str(config.as_str().unwrap()).unwrap();
    let refusal = &config["authorizers"][0];
    assert_eq!(refusal["name"], "edit-protected-secrets");
    assert_eq!(refusal["webhook"]["failurePolicy"], "Deny");
    let condition = refusal["webhook"]["matchConditions"][0]["expression"].as_str().unwrap();
    assert!(condition.starts_with("'pilothouse:role:edit' in request.groups && "), "of nobody else: {condition}");
    // Also a list of all namespaces.
    assert!(condition.ends_with(r#"namespace in ["kube-node-lease","kube-public","kube-system",""]"#), "{condition}");
}

#[test]
fn new_certificates_roll_the_control_plane_and_leave_etcd_running() {
    let before = rendered("1.36.3", |_, _, _| {});
    let renewed = rendered("1.36.3", |_, _, pki| {
        pki.leaves.values_mut().for_each(|leaf| leaf.cert_pem.insert_str(0, "<new> "));
    });
    assert_ne!(annotation(&before, 1), annotation(&renewed, 1));
    assert_eq!(before.workloads()[0], renewed.workloads()[0], "it reads its certificate again by itself");
    let secret = |manifests: &Manifests| {
        let found =
            manifests.objects.iter().find(|object| object["kind"] == "Secret" && object["metadata"]["name"] == ETCD);
        found.unwrap()["data"]["server.crt"].clone()
    };
    assert_ne!(secret(&before), secret(&renewed));
}

#[test]
fn pods_are_hardened() {
    for workload in rendered("1.36.3", |_, _, _| {}).workloads() {
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
        for container in programs(workload) {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["capabilities"]["drop"][0], "ALL");
            assert!(container["resources"]["limits"]["cpu"].is_null());
        }
    }
}

#[test]
fn no_secret_stands_in_an_argument_or_a_variable() {
    for workload in rendered("1.36.3", |_, _, _| {}).workloads() {
        let text = workload.to_string();
        assert!(!text.contains("key>") && !text.contains("<platform"), "{text}");
    }
}

#[test]
fn no_ca_key_reaches_the_host() {
    let text = serde_json::to_string(&readable(rendered("1.36.3", |_, _, _| {}))).unwrap();
    assert!(!text.contains("CA key"), "a CA's key has no place in the host");
}

#[test]
fn each_program_sees_its_own_files_only() {
    let manifests = rendered("1.36.3", |_, _, _| {});
    for container in programs(&manifests.workloads()[1]) {
        let mounts = container["volumeMounts"].as_array().unwrap();
        let secrets: Vec<&str> = mounts
            .iter()
            .filter(|mount| mount["readOnly"] == true)
            .map(|mount| mount["name"].as_str().unwrap())
            .collect();
        let name = container["name"].as_str().unwrap();
        let shared = if name == apiserver::NAME { &[CLIENT_AUTHORITIES][..] } else { &[] };
        assert_eq!(secrets, [&[name][..], shared].concat());
    }
}

#[test]
fn several_replicas_elect_a_leader() {
    let flags = |replicas| {
        let manifests = rendered("1.36.3", |spec, _, _| spec.replicas = replicas);
        program(&manifests, controller_manager::NAME)["args"].to_string()
    };
    assert!(flags(1).contains("--leader-elect=false") && flags(2).contains("--leader-elect=true"));
}

#[test]
fn fsync_is_given_up_only_on_demand() {
    let args = |fsync| {
        let manifests = rendered("1.36.3", |_, placement, _| placement.fsync = fsync);
        manifests.workloads()[0]["spec"]["template"]["spec"]["containers"][0]["args"].to_string()
    };
    assert!(!args(true).contains("fsync") && args(false).contains("--unsafe-no-fsync=true"));
}
