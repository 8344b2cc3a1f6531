//! Text that others wrote (agents, tenants' API servers, webhooks, providers, consoles of machines) made fit to be kept and shown.
//!
//! Such text is passed through here where it enters, so that nothing behind has to think of it: it is short, it is one line, and it
//! holds nothing that moves a terminal or turns the direction of what stands beside it.

use std::iter::Peekable;
use std::str::Chars;

/// The most characters of untrusted text that are kept.
pub const LONGEST: usize = 600;

const ESCAPE: char = '\u{1b}';
const BELL: char = '\u{7}';
/// The eight-bit forms of `ESC [`, of those that begin a string (`ESC P`, `X`, `]`, `^`, `_`), and of what ends one (ECMA-48, 8.3).
const CONTROL_SEQUENCE: char = '\u{9b}';
const STRINGS: [char; 5] = ['\u{90}', '\u{98}', '\u{9d}', '\u{9e}', '\u{9f}'];
const STRING_END: char = '\u{9c}';

/// One line of at most [`LONGEST`] printable characters: see [`printable_within`].
pub fn printable(text: &str) -> String {
    printable_within(text, LONGEST)
}

/// One line of at most `longest` printable characters, the last of them `…` where something was cut off. Terminal sequences (ECMA-48)
/// go whole; control characters, Unicode's directional formatting (UAX #9), invisible ones and tags go; white space becomes one blank.
/// What is left of a text that was clean, short and on one line is that text.
pub fn printable_within(text: &str, longest: usize) -> String {
    // A blank is written when something follows it.
    let (mut kept, mut count, mut blank) = (String::new(), 0, false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            ESCAPE => {
                skip_escape(&mut letters);
                continue;
            }
            CONTROL_SEQUENCE => {
                skip_control_sequence(&mut letters);
                continue;
            }
            letter if STRINGS.contains(&letter) => {
                skip_string(&mut letters);
                continue;
            }
            letter if letter.is_whitespace() => {
                blank = count > 0;
                continue;
            }
            letter if is_unprintable(letter) => continue,
            letter => letter,
        };
        if count + usize::from(blank) >= longest {
            if count == longest {
                kept.pop();
            }
            kept.push('…');
            return kept;
        }
        if std::mem::take(&mut blank) {
            kept.push(' ');
            count += 1;
        }
        kept.push(letter);
        count += 1;
    }
    kept
}

/// The text with every character replaced that moves a terminal or hides what it is, and nothing cut: for lines of logs.
pub fn without_controls(line: &str) -> String {
    line.chars().map(|letter| if is_unprintable(letter) && letter != '\t' { '\u{fffd}' } else { letter }).collect()
}

fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What follows `ESC`: a control sequence, a string, or one or more intermediate bytes and a final one.
fn skip_escape(letters: &mut Peekable<Chars<'_>>) {
    match letters.peek() {
        Some('[') => {
            letters.next();
            skip_control_sequence(letters);
        }
        Some('P' | 'X' | ']' | '^' | '_') => {
            letters.next();
            skip_string(letters);
        }
        _ => {
            while letters.next_if(|letter| (' '..='/').contains(letter)).is_some() {}
            letters.next_if(|letter| ('0'..='~').contains(letter));
        }
    }
}

/// Parameters and intermediates, then one final byte.
fn skip_control_sequence(letters: &mut Peekable<Chars<'_>>) {
    while letters.next_if(|letter| (' '..='?').contains(letter)).is_some() {}
    letters.next_if(|letter| ('@'..='~').contains(letter));
}

/// A string ends with its terminator, with a bell, or, where neither comes, with its line.
fn skip_string(letters: &mut Peekable<Chars<'_>>) {
    while let Some(letter) = letters.next_if(|letter| *letter != '\n' && *letter != '\r') {
        match letter {
            BELL | STRING_END => return,
            ESCAPE => {
                letters.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays() {
        let text = "kubelet: søk 検索 — \"x\" 100 % (a|b)";
        assert_eq!(printable(text), text);
        assert_eq!(printable(""), "");
    }

    #[test]
    fn nothing_moves_a_terminal() {
        let clipboard = "\u{1b}]52;c;cm0gLXJm\u{7}\u{1b}[2J\u{1b}[1;31mALL FINE\u{1b}[0m";
        assert_eq!(printable(clipboard), "ALL FINE");
        assert_eq!(printable("a\u{9b}2Jb\u{9d}0;title\u{9c}c\u{1b}Pq#0\u{1b}\\d"), "abcd");
        assert_eq!(printable("a\u{1b}(Bb\u{1b}7c\u{1b}"), "abc");
        assert_eq!(printable("a\u{8}\u{7f}\0b"), "ab");
        assert_eq!(printable("x\u{1b}]0;no end\nsecond line"), "x second line", "a string takes no more than its line");
    }

    #[test]
    fn nothing_turns_or_hides_what_stands_beside_it() {
        assert_eq!(
            printable("abc\u{202e}fed\u{202c}\u{2066}x\u{2069}\u{200f}\u{61c}\u{feff}\u{200b}\u{e0041}"),
            "abcfedx"
        );
    }

    #[test]
    fn it_is_one_line() {
        assert_eq!(printable("  a\r\n\tb\u{2028}c\u{85}d   e  \n"), "a b c d e");
    }

    #[test]
    fn it_is_short_whatever_it_was() {
        let long = printable(&"x".repeat(8 << 20));
        assert_eq!((long.chars().count(), long.ends_with("x…")), (LONGEST, true));
        assert_eq!(printable(&"ö".repeat(LONGEST)), "ö".repeat(LONGEST));
        assert_eq!(printable_within("abcdef", 3), "ab…");
        assert_eq!(printable_within("abc   ", 3), "abc", "blanks at the end are not something cut off");
    }

    #[test]
    fn a_line_of_a_log_is_kept_whole() {
        assert_eq!(without_controls("a\tb\u{1b}[2J\u{202e}"), "a\tb\u{fffd}[2J\u{fffd}");
    }
}
