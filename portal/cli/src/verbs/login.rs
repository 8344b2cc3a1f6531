//! `pilothouse login`: remember a portal, its authority and a token.

use std::io::{IsTerminal, Write};
use std::path::Path;

use api_types::Me;
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};

use crate::client::{Call, Client};
use crate::context::{self, Config, Context, file_error};
use crate::error::{CliError, Result};
use crate::progress::Screen;
use crate::session::{given, given_token, read, trim};
use crate::{Format, Globals};

/// Options of `login`.
#[derive(Args, Debug)]
pub struct LoginArgs {
    /// Options of every verb.
    #[command(flatten)]
    pub globals: Globals,
}

/// Checks the token with the portal, then writes it to the config file. Without `--token-file` and `PILOTHOUSE_TOKEN`
/// it is asked for, or read from standard input when that is not a terminal.
pub async fn run(args: LoginArgs) -> Result<()> {
    let globals = args.globals;
    let server = given(&globals.server).map(trim).ok_or_else(|| {
        CliError::usage("no portal specified", "Add --server URL; `pilothouse up` prints it as portal_url.")
    })?;
    let ca = given(&globals.ca_file).map(|file| read(Path::new(file))).transpose()?;
    let token = match given_token(&globals)? {
        Some(token) => token,
        None => ask()?,
    };
    let me: Me = Client::new(&server, ca.as_deref(), Some(token.clone()))?.send(Call::get("/me")).await?;
    let path =
        context::path().ok_or_else(|| CliError::usage("no home directory found", "Set HOME or XDG_CONFIG_HOME."))?;
    let name = given(&globals.context).unwrap_or("default");
    let saved = Context {
        server: server.clone(),
        token: Some(token.expose_secret().to_owned()),
        ca,
        org: given(&globals.org).map(str::to_owned),
        project: given(&globals.project).map(str::to_owned),
    };
    remember(&path, name, saved)?;
    Screen::new(globals.quiet).say(&format!("Signed in to {server} as {}; saved in {}", me.user.email, path.display()));
    match globals.output {
        Format::Table => Ok(()),
        other => other.document(&me),
    }
}

fn remember(path: &Path, name: &str, saved: Context) -> Result<()> {
    let mut config = Config::load(path)?;
    config.contexts.insert(name.to_owned(), saved);
    config.current = Some(name.to_owned());
    config.save(path)
}

/// Reads a token from standard input; a terminal does not show it.
fn ask() -> Result<SecretString> {
    let stdin = std::io::stdin();
    let silenced = stdin.is_terminal().then(silence).flatten();
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if let Some(before) = silenced {
        // Failing to bring the echo back leaves nothing better to do.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &before);
        let _ = writeln!(std::io::stderr());
    }
    read.map_err(|source| file_error("read", Path::new("standard input"), source))?;
    match line.trim() {
        "" => Err(CliError::usage(
            "no token given",
            "Create one with `pilothouse admin token` on the platform host, or with `pilothouse token create`.",
        )),
        token => Ok(SecretString::from(token)),
    }
}

/// Asks for the token and switches the echo off; returns what to switch back to.
fn silence() -> Option<Termios> {
    let _ = write!(std::io::stderr(), "API token (not shown): ").and_then(|()| std::io::stderr().flush());
    let before = tcgetattr(std::io::stdin()).ok()?;
    let mut quiet = before.clone();
    quiet.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(std::io::stdin(), SetArg::TCSANOW, &quiet).ok()?;
    Some(before)
}
