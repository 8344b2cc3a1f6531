//! Answers on standard output: a table for people, JSON or YAML of the REST shapes for programs, or just names.

mod rows;

use std::io::{ErrorKind, Write};

use api_types::List;
use clap::ValueEnum;
use serde::Serialize;

use crate::error::{CliError, Result};
use crate::terminal;

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
            Format::Name => print(&format!("{}\n", terminal::one_line(&item.name()))),
            Format::Json | Format::Yaml => self.document(item),
        }
    }

    /// Prints a collection, of an empty one the column titles; as JSON and YAML it stays wrapped in `items`.
    pub fn items<T: Row>(self, items: Vec<T>) -> Result<()> {
        match self {
            Format::Table => print(&table(T::HEADER, &items.iter().map(Row::cells).collect::<Vec<_>>())),
            Format::Name => {
                print(&items.iter().map(|item| terminal::one_line(&item.name()) + "\n").collect::<String>())
            }
            Format::Json | Format::Yaml => self.document(&List { items, next_cursor: None }),
        }
    }

    /// Prints any shape as JSON, or as YAML where that was asked for.
    pub fn document(self, shape: &impl Serialize) -> Result<()> {
        print(&self.text(shape)?)
    }

    /// JSON is YAML too: what only JSON can escape is shown so.
    fn text(self, shape: &impl Serialize) -> Result<String> {
        if self == Format::Yaml {
            let text = serde_yaml_ng::to_string(shape).map_err(|source| CliError::Print { source: source.into() })?;
            if terminal::is_clean(&text) {
                return Ok(text);
            }
        }
        let text = serde_json::to_string_pretty(shape).map_err(|source| CliError::Print { source: source.into() })?;
        Ok(terminal::json(&text) + "\n")
    }
}

/// Writes to standard output, nothing that moves a terminal. A reader that has gone (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(terminal::lines(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::Print { source: error.into() }),
        _ => Ok(()),
    }
}

/// Columns as wide as their widest cell, two spaces apart, no blanks at line ends.
fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let clean = |row: &Vec<String>| row.iter().map(|cell| terminal::one_line(cell)).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(clean).collect();
    let titles: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| {
            std::iter::once(&titles)
                .chain(&rows)
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
                .unwrap_or(0)
        })
        .collect();
    std::iter::once(&titles).chain(&rows).map(|row| line(row, &widths) + "\n").collect()
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

    #[test]
    fn no_row_can_hide_another() {
        let rows = [vec!["a".into(), "\u{1b}[1A\u{1b}[2Knobody here\nb  ready".into()]];
        assert_eq!(
            table(&["NAME", "MESSAGE"], &rows),
            "NAME  MESSAGE\na     \u{fffd}[1A\u{fffd}[2Knobody here b  ready\n"
        );
    }

    #[test]
    fn documents_keep_the_value_and_move_nothing() {
        let shape = serde_json::json!({ "message": "\u{9b}2J\u{85}\u{202e}x" });
        for format in [Format::Json, Format::Yaml] {
            let text = format.text(&shape).unwrap();
            assert!(terminal::is_clean(&text), "{text:?}");
            assert_eq!(serde_yaml_ng::from_str::<serde_json::Value>(&text).unwrap(), shape);
        }
        assert_eq!(Format::Yaml.text(&serde_json::json!({ "name": "shop" })).unwrap(), "name: shop\n");
    }
}
