//! `pilothouse bundle key`, `trust` and `rotate-key`: whose signature counts on this machine.

use std::process::ExitCode;

use anyhow::{Result, bail};
use bundle::Keys;

use super::print;
use crate::options::{KeyArgs, Output, RotateKeyArgs, TrustArgs};

fn keys() -> Keys {
    Keys::new(Keys::default_dir())
}

/// Prints the own public key, made where there is none yet, and the trusted ones.
pub fn show(args: &KeyArgs) -> Result<ExitCode> {
    let (own, trusted) = (keys().own()?, keys().trusted()?);
    let also: String = trusted.iter().map(|key| format!("\n{key} (trusted)")).collect();
    Ok(print(args.output, &format!("{own}{also}"), &serde_json::json!({ "key": own, "trusted": trusted })))
}

/// Trusts a key, or no longer.
pub fn trust(args: &TrustArgs) -> Result<ExitCode> {
    let (keys, key) = (keys(), args.key);
    if !args.remove {
        keys.trust(key)?;
        return Ok(print(Output::Text, &format!("Bundles signed by {key} are used and imported here."), &().into()));
    }
    if !keys.distrust(key)? {
        bail!("{key} was not trusted here: see `pilothouse bundle key`");
    }
    Ok(print(Output::Text, &format!("Bundles signed by {key} are no longer used."), &().into()))
}

/// Puts another key in the place of the one there is.
pub async fn rotate(args: RotateKeyArgs) -> Result<ExitCode> {
    let keys = keys().with_file(args.signing_key);
    let key = bundle::rotate(&keys, &|event| eprintln!("{event}")).await?;
    let text = format!(
        "{key} signs from now on. Nodes learn it when the platform starts again: pilothouse down, pilothouse up"
    );
    Ok(print(args.output, &text, &serde_json::json!({ "key": key })))
}
