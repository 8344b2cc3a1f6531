//! The stages as a program, for this crate's own tests.
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (stage, spec) = (args.next().unwrap_or_default(), PathBuf::from(args.next().unwrap_or_default()));
    let outcome = match stage.as_str() {
        "machine-run" => cloud_local::stage::run(&spec),
        "machine-users" => cloud_local::stage::users(),
        _ => cloud_local::stage::init(&spec),
    };
    outcome.unwrap_or_else(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            text.push_str(&format!(": {deeper}"));
            cause = deeper.source();
        }
        eprintln!("{stage}: {text}");
        ExitCode::FAILURE
    })
}
