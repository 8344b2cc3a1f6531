//! Every help text, as one snapshot: wording is reviewed as a diff.

use clap::{Command, CommandFactory};

use super::Cli;

/// The help of a command and of everything below it, without what the machine decides.
fn write(command: &mut Command, path: &str, text: &mut String) {
    *command = command.clone().mut_args(|argument| argument.hide_env_values(true));
    let path = format!("{path} {}", command.get_name()).trim_start().to_owned();
    text.push_str(&format!("## {path}\n\n{}\n", command.render_help()));
    for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        write(sub, &path, text);
    }
}

#[test]
fn help_texts_are_as_reviewed() {
    let mut command = Cli::command().term_width(120);
    command.build();
    let mut text = String::new();
    write(&mut command, "", &mut text);
    insta::assert_snapshot!("help", text);
}
