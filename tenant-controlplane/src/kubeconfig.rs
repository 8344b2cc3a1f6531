//! Kubeconfig files, written so that kubectl needs no wildcard DNS: one address serves every cluster, `tls-server-name` says which.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::id::KubeconfigId;
use crate::name::ClusterName;

/// What a kubeconfig says.
pub struct KubeconfigInput<'a> {
    /// The name of its cluster, user and context; for people's files [`name`].
    pub name: &'a str,
    /// Where to dial, `https://address:port`.
    pub server_url: &'a str,
    /// The name to ask for and to expect in the certificate, where it differs from the address.
    pub tls_server_name: Option<&'a str>,
    /// What to trust, PEM.
    pub ca_pem: &'a str,
    /// How to prove who calls.
    pub user: UserAuth<'a>,
}

/// How a kubeconfig's user proves who it is.
pub enum UserAuth<'a> {
    /// By a client certificate inside the file.
    ClientCert {
        /// The certificate, PEM.
        cert_pem: &'a str,
        /// Its key, PEM.
        key_pem: &'a str,
    },
    /// By a program that fetches a short-lived certificate (client.authentication.k8s.io/v1).
    Exec {
        /// The program.
        command: &'a str,
        /// Its arguments; never a secret.
        args: &'a [String],
        /// What people read when the program is missing.
        install_hint: &'a str,
    },
}

/// What cluster, user and context are called in a file for people: `kubectl config` merges files by these names, and the file's own id
/// keeps any two apart, also of one cluster.
pub fn name(organization: &str, project: &str, cluster: &ClusterName, kubeconfig: KubeconfigId) -> String {
    format!("{organization}/{project}/{cluster}/{kubeconfig}")
}

/// A text as a YAML scalar: JSON's double-quoted form is one.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn user(auth: &UserAuth<'_>) -> Zeroizing<String> {
    Zeroizing::new(match auth {
        UserAuth::ClientCert { cert_pem, key_pem } => format!(
            "    client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(cert_pem),
            STANDARD.encode(key_pem)
        ),
        UserAuth::Exec { command, args, install_hint } => {
            let args: String = args.iter().fold(String::new(), |mut text, argument| {
                let _ = writeln!(text, "      - {}", quoted(argument));
                text
            });
            let list = if args.is_empty() { "      args: []\n".to_owned() } else { format!("      args:\n{args}") };
            format!(
                "    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      interactiveMode: IfAvailable\n      \
                 provideClusterInfo: false\n      command: {}\n      installHint: {}\n{list}",
                quoted(command),
                quoted(install_hint)
            )
        }
    })
}

/// The file's text, YAML. It holds a private key where the user is a client certificate: write it with mode 0600.
pub fn kubeconfig(input: &KubeconfigInput<'_>) -> String {
    let name = quoted(input.name);
    let server = quoted(input.server_url);
    let ca = STANDARD.encode(input.ca_pem);
    let server_name =
        input.tls_server_name.map(|name| format!("    tls-server-name: {}\n", quoted(name))).unwrap_or_default();
    let user = user(&input.user);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n{server_name}    \
         certificate-authority-data: {ca}\nusers:\n- name: {name}\n  user:\n{}contexts:\n- name: {name}\n  context:\n    \
         cluster: {name}\n    user: {name}\ncurrent-context: {name}\n",
        user.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(auth: UserAuth<'_>) -> Value {
        let text = kubeconfig(&KubeconfigInput {
            name: "de\"mo: x",
            server_url: "https://192.0.2.1:8443",
            tls_server_name: Some("x.api.pilothouse.internal"),
            ca_pem: "CA",
            user: auth,
        });
        serde_yaml_ng::from_str(&text).unwrap()
    }

    #[test]
    fn a_certificate_file_reads_back() {
        let value = read(UserAuth::ClientCert { cert_pem: "CERT", key_pem: "KEY" });
        assert_eq!(value["current-context"], "de\"mo: x");
        assert_eq!(value["clusters"][0]["cluster"]["tls-server-name"], "x.api.pilothouse.internal");
        assert_eq!(value["clusters"][0]["cluster"]["certificate-authority-data"], "Q0E=");
        assert_eq!(value["users"][0]["user"]["client-key-data"], "S0VZ");
        assert_eq!(value["contexts"][0]["context"]["user"], value["users"][0]["name"]);
    }

    /// What `kubectl config view --merge` would keep of two files: the first of each name.
    fn merged(files: &[String], list: &str) -> usize {
        let values = files.iter().map(|file| serde_yaml_ng::from_str::<Value>(file).unwrap());
        let names = values.flat_map(|file| file[list].as_array().unwrap().clone()).map(|one| one["name"].to_string());
        names.collect::<std::collections::BTreeSet<_>>().len()
    }

    #[test]
    fn two_files_of_one_cluster_do_not_collide_when_merged() {
        let file = |project: &str, number: u128| {
            let id = KubeconfigId::from_uuid(uuid::Uuid::from_u128(number));
            let name = name("acme", project, &ClusterName::parse("demo").unwrap(), id);
            kubeconfig(&KubeconfigInput {
                name: &name,
                server_url: "https://192.0.2.1:8443",
                tls_server_name: Some("x.api.pilothouse.internal"),
                ca_pem: "CA",
                user: UserAuth::ClientCert { cert_pem: "CERT", key_pem: "KEY" },
            })
        };
        let files = [file("default", 1), file("default", 2), file("shop", 1)];
        for list in ["clusters", "users", "contexts"] {
            assert_eq!(merged(&files, list), 3, "{list}");
        }
        let golden = "apiVersion: v1\nkind: Config\nclusters:\n- name: \"acme/default/demo/kcf_00000000000000000000000001\"\n  cluster:\n    \
            server: \"https://192.0.2.1:8443\"\n    tls-server-name: \"x.api.pilothouse.internal\"\n    \
            certificate-authority-data: Q0E=\nusers:\n- name: \"acme/default/demo/kcf_00000000000000000000000001\"\n  user:\n    \
            client-certificate-data: Q0VSVA==\n    client-key-data: S0VZ\ncontexts:\n- name: \
            \"acme/default/demo/kcf_00000000000000000000000001\"\n  context:\n    cluster: \
            \"acme/default/demo/kcf_00000000000000000000000001\"\n    user: \
            \"acme/default/demo/kcf_00000000000000000000000001\"\ncurrent-context: \
            \"acme/default/demo/kcf_00000000000000000000000001\"\n";
        assert_eq!(files[0], golden);
    }

    #[test]
    fn an_exec_file_reads_back() {
        let args = ["kubeconfig".to_owned(), "credential: 1".to_owned()];
        let value = read(UserAuth::Exec { command: "pilothouse", args: &args, install_hint: "install it" });
        let exec = &value["users"][0]["user"]["exec"];
        assert_eq!(exec["args"][1], "credential: 1");
        assert_eq!(exec["interactiveMode"], "IfAvailable");
        let none = read(UserAuth::Exec { command: "pilothouse", args: &[], install_hint: "" });
        assert_eq!(none["users"][0]["user"]["exec"]["args"].as_array().unwrap().len(), 0);
    }
}
