//! The page for an error.

use api_types::Problem;
use askama::Template;
use axum::response::{IntoResponse, Response};

use super::{assets, render};

#[derive(Template)]
#[template(path = "problem.html")]
struct Page<'a> {
    theme: &'static str,
    problem: &'a Problem,
    /// Who has to act.
    action_by: &'static str,
    /// The next step.
    next: &'a str,
}

/// Renders the page; a template that fails leaves the problem's own sentence.
pub fn page(problem: &Problem) -> Response {
    let page = Page { theme: "auto", problem, action_by: action_by(&problem.class), next: next(problem) };
    render::page(&page).unwrap_or_else(|_| render::page_headers(problem.detail.clone().into_response()))
}

/// The next step; for an address that is none, a step for people and not for programs.
fn next(problem: &Problem) -> &str {
    if problem.code == "ROUTE_NOT_FOUND" {
        "Check the address, or start from your clusters."
    } else {
        &problem.remediation
    }
}

/// Who has to act on a problem of that class.
pub fn action_by(class: &str) -> &'static str {
    match class {
        "user" => "You",
        "quota" => "You (delete unused resources) or the platform operator (raise the limit)",
        "provider" => "Cloud provider",
        _ => "Platform operator",
    }
}
