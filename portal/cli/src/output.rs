//! Answers on standard output: a table for people, JSON or YAML of the REST shapes for programs, or just names.

mod rows;

use std::io::{ErrorKind, Write};

use api_types::List;
use clap::ValueEnum;
use serde::Serialize;

use crate::error::{CliError, Result};

/// How an answer is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// The JSON of the REST API
    Json,
    /// The same as YAML
    Yaml,
    /// One name a line
    Name,
}

/// Something that can be one row of a table.
pub trait Row: Serialize {
    /// Column titles.
    const HEADER: &'static [&'static str];
    /// One text per column.
    fn cells(&self) -> Vec<String>;
    /// What `-o name` prints.
    fn name(&self) -> String;
}

impl Format {
    /// Prints one thing.
    pub fn item<T: Row>(self, item: &T) -> Result<()> {
        match self {
            Format::Table => print(&table(T::HEADER, &[item.cells()])),
            Format::Name => print(&format!("{}\n", item.name())),
            Format::Json | Format::Yaml => self.document(item),
        }
    }

    /// Prints a collection; as JSON and YAML it stays wrapped in `items`.
    pub fn items<T: Row>(self, items: Vec<T>) -> Result<()> {
        match self {
            Format::Table if items.is_empty() => Ok(()),
            Format::Table => print(&table(T::HEADER, &items.iter().map(Row::cells).collect::<Vec<_>>())),
            Format::Name => print(&items.iter().map(|item| item.name() + "\n").collect::<String>()),
            Format::Json | Format::Yaml => self.document(&List { items, next_cursor: None }),
        }
    }

    /// Prints any shape as JSON, or as YAML where that was asked for.
    pub fn document(self, shape: &impl Serialize) -> Result<()> {
        let text = match self {
            Format::Yaml => {
                serde_yaml_ng::to_string(shape).map_err(|source| CliError::Print { source: source.into() })?
            }
            _ => {
                serde_json::to_string_pretty(shape).map_err(|source| CliError::Print { source: source.into() })? + "\n"
            }
        };
        print(&text)
    }
}

/// Writes to standard output. A reader that has gone (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Print { source: error.into() }),
        _ => Ok(()),
    }
}

/// Columns as wide as their widest cell, two spaces apart, no blanks at line ends.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let titles: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| {
            std::iter::once(&titles)
                .chain(rows)
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    std::iter::once(&titles).chain(rows).map(|row| line(row, &widths) + "\n").collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, &wide) in row.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', wide.saturating_sub(width(cell)) + 2));
    }
    line.trim_end().to_owned()
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let rows = [vec!["shop".into(), "running".into()], vec!["søk-2".into(), String::new()]];
        assert_eq!(table(&["NAME", "STATE"], &rows), "NAME   STATE\nshop   running\nsøk-2\n");
    }
}
