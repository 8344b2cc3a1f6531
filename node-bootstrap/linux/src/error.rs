//! Errors as a person reads them.

use std::error::Error;

/// An error with its causes, in one line.
pub fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let (mut last, mut cause) = (text.clone(), error.source());
    while let Some(inner) = cause {
        let said = inner.to_string();
        // A mere wrapper says the same again.
        if said != last {
            text.push_str(": ");
            text.push_str(&said);
        }
        (last, cause) = (said, inner.source());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::io;

    #[test]
    fn causes_follow_their_errors() {
        let error = io("read", "/x".as_ref())(std::io::Error::other("no disk"));
        assert_eq!(describe(&error), "read /x: no disk");
    }
}
