//! A form that came back: the values as they were typed, and what is wrong with them.

use api_types::Problem;
use axum::http::StatusCode;

use crate::error::Error;
use crate::text::sentence;

/// What was refused; empty for a form that is shown for the first time.
#[derive(Default)]
pub struct Refusal(Option<Problem>);

impl Refusal {
    /// Keeps an error that the person can do something about; faults of ours go on as errors.
    ///
    /// # Errors
    /// The error itself, where showing the form again would not help.
    pub fn of(error: Error) -> Result<Self, Error> {
        match error {
            Error::Unauthenticated | Error::Internal(_) | Error::Unavailable(_) | Error::NotFound { .. } => Err(error),
            other => Ok(Refusal(Some(other.problem()))),
        }
    }

    /// What is wrong with one field (`name` for the pointer `/name`).
    pub fn field(&self, name: &str) -> Option<String> {
        let mut fields = self.0.iter().flat_map(|problem| &problem.errors);
        let found = fields.find(|field| field.pointer.trim_start_matches('/') == name)?;
        // On a page, what programs read between backticks stands in quotes.
        Some(sentence(&found.detail).replace('`', "'"))
    }

    /// What is wrong with the whole, where no field says it.
    pub fn general(&self) -> Option<&Problem> {
        self.0.as_ref().filter(|problem| problem.errors.is_empty())
    }

    /// The status of the page that shows it.
    pub fn status(&self) -> StatusCode {
        let status = self.0.as_ref().map_or(200, |problem| problem.status);
        StatusCode::from_u16(status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY)
    }
}
