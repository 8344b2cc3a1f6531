//! What every verb starts from: the portal to ask, found by flags, environment and config file in that order; and names
//! turned into ids.

use std::fs;
use std::io::Read;
use std::path::Path;

use api_types::{Cluster, Kubeconfig, Me, Membership, Node, NodePool, Organization, Project, Token};
use secrecy::SecretString;
use serde::de::DeserializeOwned;

use crate::client::{Call, Client};
use crate::context::{self, Config, Context, file_error};
use crate::error::{CliError, Result};
use crate::output::Format;
use crate::{Globals, progress};

/// A portal, a person and a way to show things.
pub struct Session {
    /// The portal.
    pub client: Client,
    /// How answers are shown.
    pub output: Format,
    /// Where progress goes.
    pub progress: progress::Screen,
    org: Option<String>,
    project: Option<String>,
}

impl Session {
    /// Opens a session: flags win over environment, environment over the config file.
    ///
    /// The config file's token and authority are used only for the server they were saved with.
    pub fn open(globals: &Globals) -> Result<Self> {
        let saved = saved_context(globals)?;
        let server = given(&globals.server).map(trim).unwrap_or(saved.server.clone());
        if server.is_empty() {
            return Err(CliError::usage(
                "no portal specified",
                "Run `pilothouse login`, set PILOTHOUSE_SERVER, or pass --server URL; on the platform host, run `eval \"$(pilothouse admin env)\"`.",
            ));
        }
        let same = server == saved.server;
        let ca = match given(&globals.ca_file) {
            Some(file) => Some(read(Path::new(file))?),
            None => saved.ca.filter(|_| same),
        };
        let token = given_token(globals)?.or_else(|| saved.token.filter(|_| same).map(SecretString::from));
        let progress = progress::Screen::new(globals.quiet);
        Ok(Session {
            client: Client::new(&server, ca.as_deref(), token)?.telling(progress),
            output: globals.output,
            progress,
            org: given(&globals.org).map(str::to_owned).or(saved.org),
            project: given(&globals.project).map(str::to_owned).or(saved.project),
        })
    }

    /// The organization asked for, or the only one, or the one called `default`.
    pub async fn organization(&self) -> Result<Membership> {
        let me: Me = self.client.send(Call::get("/me")).await?;
        let wanted = self.org.as_deref();
        let mut found = me.organizations;
        if let Some(wanted) = wanted {
            found.retain(|org| org.organization_id == wanted || org.organization_name == wanted);
        } else if found.len() > 1 {
            found.retain(|org| org.organization_name == "default");
        }
        if let [first, _, ..] = found.as_slice() {
            let ids = found.iter().map(|org| org.organization_id.clone()).collect();
            return Err(CliError::Ambiguous { name: first.organization_name.clone(), ids });
        }
        found.into_iter().next().ok_or_else(|| CliError::NotFound {
            kind: "organization",
            name: wanted.unwrap_or("default").to_owned(),
            next: "Specify one with --org; `pilothouse org list` shows yours.".into(),
        })
    }

    /// The project asked for, or the only one of the organization, or the one called `default`.
    pub async fn project(&self) -> Result<Project> {
        if let Some(id) = self.project.as_deref().filter(|text| is_id(text, "prj")) {
            return self.client.send(Call::get(format!("/projects/{id}"))).await;
        }
        let org = self.organization().await?;
        let path = format!("/organizations/{}/projects", org.organization_id);
        let all: Vec<Project> = self.client.list(&path, &[]).await?;
        let wanted =
            self.project.as_deref().unwrap_or(if all.len() == 1 { &all[0].name } else { "default" }).to_owned();
        all.into_iter().find(|project| project.name == wanted).ok_or_else(|| CliError::NotFound {
            kind: "project",
            name: wanted,
            next: "Specify one with --project; `pilothouse project list` shows them.".into(),
        })
    }

    /// The cluster with this name or id.
    pub async fn cluster(&self, reference: &str) -> Result<Cluster> {
        if is_id(reference, "cls") {
            return self.client.send(Call::get(format!("/clusters/{reference}"))).await;
        }
        let path = format!("/projects/{}/clusters", self.project().await?.id);
        let found = self.named(&path, reference).await?;
        one(found, |cluster: &Cluster| &cluster.id, "cluster", reference)
    }

    /// The node pool with this id, or with this name in `cluster`.
    pub async fn pool(&self, reference: &str, cluster: Option<&str>) -> Result<NodePool> {
        if is_id(reference, "np") {
            return self.client.send(Call::get(format!("/node-pools/{reference}"))).await;
        }
        let path = format!("/clusters/{}/node-pools", self.needed(cluster).await?.id);
        let found = self.named(&path, reference).await?;
        one(found, |pool: &NodePool| &pool.id, "node pool", reference)
    }

    /// The node with this id, or with this name in `cluster`.
    pub async fn node(&self, reference: &str, cluster: Option<&str>) -> Result<Node> {
        if is_id(reference, "nod") {
            return self.client.send(Call::get(format!("/nodes/{reference}"))).await;
        }
        let path = format!("/clusters/{}/nodes", self.needed(cluster).await?.id);
        let found = self.named(&path, reference).await?;
        one(found, |node: &Node| &node.id, "node", reference)
    }

    /// Id of the kubeconfig with this id, or with this name in `cluster` and not revoked.
    pub async fn kubeconfig_id(&self, reference: &str, cluster: Option<&str>) -> Result<String> {
        if is_id(reference, "kcf") {
            return Ok(reference.to_owned());
        }
        let path = format!("/clusters/{}/kubeconfigs", self.needed(cluster).await?.id);
        let mut found: Vec<Kubeconfig> = self.client.list(&path, &[]).await?;
        found.retain(|file| file.name == reference && file.revoked_at.is_none());
        one(found, |file| &file.id, "kubeconfig", reference).map(|file| file.id)
    }

    /// Id of what operations are on: of this id, else the cluster with this name, or the pool or node with this name in `cluster`.
    pub async fn target_id(&self, reference: &str, cluster: Option<&str>) -> Result<String> {
        // A name has no underscore, and every id has one.
        if reference.contains('_') {
            return Ok(reference.to_owned());
        }
        let Some(cluster) = cluster else {
            return self.cluster(reference).await.map(|cluster| cluster.id).map_err(hint_at_cluster);
        };
        let cluster = self.cluster(cluster).await?.id;
        let pools = self.named::<NodePool>(&format!("/clusters/{cluster}/node-pools"), reference).await?;
        let nodes = self.named::<Node>(&format!("/clusters/{cluster}/nodes"), reference).await?;
        let found = pools.into_iter().map(|pool| pool.id).chain(nodes.into_iter().map(|node| node.id)).collect();
        one(found, |id| id, "node pool or node", reference)
    }

    /// Id of the caller's API token with this name or id.
    pub async fn token_id(&self, reference: &str) -> Result<String> {
        if is_id(reference, "tok") {
            return Ok(reference.to_owned());
        }
        let mut found: Vec<Token> = self.client.list("/me/tokens", &[]).await?;
        found.retain(|token| token.name == reference);
        one(found, |token| &token.id, "token", reference).map(|token| token.id)
    }

    /// The organization with this name or id.
    pub async fn organization_named(&self, reference: &str) -> Result<Organization> {
        self.client.send(Call::get(format!("/organizations/{reference}"))).await
    }

    async fn needed(&self, cluster: Option<&str>) -> Result<Cluster> {
        let reference = cluster.ok_or_else(|| {
            CliError::usage("a name requires --cluster", "Add --cluster NAME, or use the ID instead.")
        })?;
        self.cluster(reference).await
    }

    async fn named<T: DeserializeOwned>(&self, path: &str, name: &str) -> Result<Vec<T>> {
        self.client.list(path, &[("name", name.to_owned())]).await
    }
}

/// Exactly one, or an error that says which ids there are.
fn one<T>(mut found: Vec<T>, id: impl Fn(&T) -> &String, kind: &'static str, reference: &str) -> Result<T> {
    if found.len() > 1 {
        let ids = found.iter().map(|item| id(item).clone()).collect();
        return Err(CliError::Ambiguous { name: format!("{kind} {reference}"), ids });
    }
    found.pop().ok_or_else(|| CliError::NotFound {
        kind,
        name: reference.to_owned(),
        next: format!("Run `pilothouse {} list`.", kind.rsplit(' ').next().unwrap_or(kind)),
    })
}

fn hint_at_cluster(error: CliError) -> CliError {
    match error {
        CliError::NotFound { kind: "cluster", name, .. } => CliError::NotFound {
            kind: "cluster",
            name,
            next: "Run `pilothouse cluster list`; for a node pool or a node add --cluster NAME.".into(),
        },
        error => error,
    }
}

/// True for a TypeID with this prefix; a name of a thing never looks like that, because names have no underscore.
fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'))
}

fn saved_context(globals: &Globals) -> Result<Context> {
    match context::path() {
        Some(path) => Config::load(&path)?.pick(given(&globals.context)),
        None => Ok(Context::default()),
    }
}

/// The token from `--token-file` or `PILOTHOUSE_TOKEN`, in that order.
pub fn given_token(globals: &Globals) -> Result<Option<SecretString>> {
    let text = match given(&globals.token_file) {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|source| file_error("read", Path::new("standard input"), source))?;
            text
        }
        Some(file) => read(Path::new(file))?,
        None => std::env::var("PILOTHOUSE_TOKEN").unwrap_or_default(),
    };
    let token = text.trim();
    Ok(if token.is_empty() { None } else { Some(SecretString::from(token)) })
}

/// Reads a small text file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| file_error("read", path, source))
}

/// An option or a variable; an empty one, as scripts leave it, counts as unset.
pub fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// A server address without its trailing slash.
pub fn trim(server: &str) -> String {
    server.trim_end_matches('/').to_owned()
}
