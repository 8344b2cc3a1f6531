//! From a template to a response, and the headers every page has.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use crate::error::Error;

/// No script, style, image or form but our own; nothing inline; nobody frames us.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A rendered page.
///
/// # Errors
/// [`Error::Internal`] when a template cannot be written out, which only a fault in it can cause.
pub fn page(template: &impl Template) -> Result<Response, Error> {
    page_as(StatusCode::OK, template)
}

/// A rendered page with another status than 200: a form with its errors.
///
/// # Errors
/// As [`page`].
pub fn page_as(status: StatusCode, template: &impl Template) -> Result<Response, Error> {
    let text = template.render().map_err(Error::internal)?;
    Ok(page_headers((status, Html(text)).into_response()))
}

/// Gives a response the headers of a page where it does not have them yet.
pub fn page_headers(mut response: Response) -> Response {
    let fields = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fields {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
