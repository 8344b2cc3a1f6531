//! How two stages communicate: a line each way, over the inner one's standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout};

use crate::error::LocalError;

const NAME: &str = "the other stage";

/// The inner stage, as the outer one sees it.
pub struct Peer {
    output: Option<BufReader<ChildStdout>>,
    input: Option<ChildStdin>,
}

impl Peer {
    /// Takes a child's pipes.
    pub fn of(child: &mut Child) -> Self {
        Self { output: child.stdout.take().map(BufReader::new), input: child.stdin.take() }
    }

    /// Waits for a line.
    pub fn receive(&mut self) -> Result<(), LocalError> {
        self.output.as_mut().map_or(Err(silence()), expect_line)
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) -> Result<(), LocalError> {
        self.input.as_mut().map_or(Ok(()), |input| writeln!(input, "{line}").map_err(LocalError::file(NAME)))
    }
}

/// Waits, in the inner stage, for a line of the outer one.
pub fn receive() -> Result<(), LocalError> {
    expect_line(&mut std::io::stdin().lock())
}

/// Sends a line to the outer stage.
pub fn send(line: &str) -> Result<(), LocalError> {
    let mut output = std::io::stdout();
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(LocalError::file(NAME))
}

fn expect_line(from: &mut impl BufRead) -> Result<(), LocalError> {
    let mut line = String::new();
    from.read_line(&mut line).map_err(LocalError::file(NAME))?;
    if line.is_empty() { Err(silence()) } else { Ok(()) }
}

fn silence() -> LocalError {
    LocalError::Ended { console: "it said nothing".to_owned() }
}
