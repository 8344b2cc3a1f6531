//! One file per noun; each holds its verbs and what they do.

pub mod audit;
pub mod cluster;
pub mod kubeconfig;
pub mod login;
pub mod node;
pub mod operation;
pub mod org;
pub mod pool;
pub mod project;
pub mod token;

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use clap::Args;

use crate::client::Call;
use crate::context::file_error;
use crate::error::{CliError, Result};
use crate::progress::Wait;
use crate::terminal::one_line;

/// A cluster, as an argument or as the option that other commands of the noun have.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct InCluster {
    /// Cluster name or ID
    #[arg(value_name = "CLUSTER")]
    cluster: Option<String>,
    /// In place of the argument
    #[arg(long = "cluster", value_name = "CLUSTER")]
    option: Option<String>,
}

impl InCluster {
    /// Name or ID, whichever way it was given.
    fn reference(self) -> String {
        self.cluster.or(self.option).unwrap_or_default()
    }
}

/// How something is taken away.
struct Removal {
    /// Whether nobody is asked.
    yes: bool,
    /// Whether nothing is waited for that may never come.
    force: bool,
    wait: Wait,
}

impl Removal {
    fn call(&self, path: String) -> Call {
        let call = Call::delete(path);
        if self.force { call.query("force", "true") } else { call }
    }
}

/// Makes sure a person means it: `--yes`, or the name typed at a terminal.
fn confirm(yes: bool, action: &str, name: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(CliError::usage(format!("{action} {name} requires confirmation"), "Add --yes."));
    }
    let _ = write!(std::io::stderr(), "{action} {}? This cannot be undone. Type the name to confirm: ", one_line(name));
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut typed)
        .map_err(|source| file_error("read", Path::new("standard input"), source))?;
    if typed.trim() == name { Ok(()) } else { Err(CliError::usage("the name did not match", "Nothing was changed.")) }
}
