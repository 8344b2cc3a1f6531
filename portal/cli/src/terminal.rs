//! Nothing that is printed moves the terminal it is printed on: what the portal answers carries text that others wrote (agents, webhooks,
//! providers). The portal has cleaned it; this holds for a portal of any version.

/// One cell or one line: what would move the cursor, ring, color, end the line or turn the direction of text becomes a blank or U+FFFD.
pub fn one_line(text: &str) -> String {
    let blank = |letter| matches!(letter, '\n' | '\r' | '\t');
    text.trim_end().chars().map(|letter| if blank(letter) { ' ' } else { visible(letter) }).collect()
}

/// Whole text whose lines matter, such as a file: line ends and tabs stay.
pub fn lines(text: &str) -> String {
    let kept = |letter| matches!(letter, '\n' | '\t');
    text.chars().map(|letter| if kept(letter) { letter } else { visible(letter) }).collect()
}

/// JSON with the same characters escaped (RFC 8259, section 7): the value stays what it is. Outside of strings JSON has none of them but
/// line ends.
pub fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter == '\n' || !is_hidden(letter) {
            escaped.push(letter);
        } else {
            let mut units = [0; 2];
            letter.encode_utf16(&mut units).iter().for_each(|unit| escaped.push_str(&format!("\\u{unit:04x}")));
        }
    }
    escaped
}

/// Whether a text holds anything that moves a terminal, line ends and tabs excepted.
pub fn is_clean(text: &str) -> bool {
    text.chars().all(|letter| matches!(letter, '\n' | '\t') || !is_hidden(letter))
}

fn visible(letter: char) -> char {
    if is_hidden(letter) { '\u{fffd}' } else { letter }
}

/// Control characters, and Unicode's formatting of direction (UAX #9), invisible characters and tags.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "\u{1b}]52;c;cm0gLXJm\u{7}\u{9b}2J\u{202e}ok\u{85}\r\nnext";

    #[test]
    fn a_cell_is_one_line_and_moves_nothing() {
        assert_eq!(one_line(HOSTILE), "\u{fffd}]52;c;cm0gLXJm\u{fffd}\u{fffd}2J\u{fffd}ok\u{fffd}  next");
        assert_eq!(one_line("søk ✔ — 検索\n"), "søk ✔ — 検索");
    }

    #[test]
    fn a_file_keeps_its_lines() {
        assert_eq!(lines("a:\n\tb\u{1b}[2J\r\n"), "a:\n\tb\u{fffd}[2J\u{fffd}\n");
    }

    #[test]
    fn json_keeps_its_value() {
        let text =
            serde_json::to_string_pretty(&serde_json::json!({ "message": format!("{HOSTILE}\u{e0041}") })).unwrap();
        let escaped = json(&text);
        assert!(is_clean(&escaped) && !is_clean(&text), "{escaped}");
        let value: serde_json::Value = serde_json::from_str(&escaped).unwrap();
        assert_eq!(value["message"], format!("{HOSTILE}\u{e0041}"));
    }
}
