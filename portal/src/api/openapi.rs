//! What every operation of the document has in common, written into it once: headers, the parameters of the guard, and
//! the codes of the problems it may answer. The guard reads the query parameters back from here, so that what is
//! described and what is accepted are one.

use crate::error::catalog;
use std::collections::BTreeMap;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::{
    ContentBuilder, Object, OpenApi, Ref, RefOr, Required, Response, ResponseBuilder, SecurityRequirement, Type,
};

/// What the guard must know of a route.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The names of its query parameters.
    pub queries: Vec<String>,
    /// Whether it answers without credentials.
    pub open: bool,
}

/// Routes by path template and method (`GET`).
pub type Routes = BTreeMap<(String, String), Known>;

const PROBLEM: &str = "application/problem+json";
/// Shapes that carry an etag.
const VERSIONED: [&str; 5] = ["Organization", "Project", "Cluster", "NodePool", "Node"];

/// Completes the document.
pub fn complete(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    components.headers.extend(headers().map(|(name, header)| (name.to_owned(), RefOr::T(header))));
    components.parameters.extend(parameters().map(|(name, parameter)| (name.to_owned(), RefOr::T(parameter))));
    for (status, codes) in by_status() {
        components.responses.insert(format!("Problem{status}"), RefOr::T(problem(status, &codes)));
    }
    for item in document.paths.paths.values_mut() {
        for (method, operation) in operations(item) {
            document_operation(method, operation);
        }
    }
}

/// The routes of a completed document.
pub fn routes(document: &OpenApi) -> Routes {
    let mut routes = Routes::new();
    for (path, item) in &document.paths.paths {
        for (method, operation) in operations(&mut item.clone()) {
            let mut queries = named(operation, &ParameterIn::Query);
            if method != "GET" {
                queries.push("validate_only".to_owned());
            }
            routes.insert((path.clone(), method.to_owned()), Known { queries, open: open(operation) });
        }
    }
    routes
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all =
        [("GET", &mut item.get), ("POST", &mut item.post), ("PATCH", &mut item.patch), ("DELETE", &mut item.delete)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn open(operation: &Operation) -> bool {
    operation.security.as_ref().is_some_and(|all| all.contains(&SecurityRequirement::default()))
}

/// The names of an operation's own parameters at one place.
fn named(operation: &Operation, location: &ParameterIn) -> Vec<String> {
    let own = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) if parameter.parameter_in == *location => Some(parameter.name.clone()),
        _ => None,
    });
    own.collect()
}

fn text(description: &str) -> Header {
    let schema = Object::with_type(Type::String);
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

fn headers() -> impl Iterator<Item = (&'static str, Header)> {
    [
        ("X-Request-Id", "The request ID, as sent or generated; included in every log line and problem"),
        (
            "RateLimit-Policy",
            "The limits that apply to this request: `\"write\";q=120;w=60` is 120 writes in 60 seconds",
        ),
        ("RateLimit", "Remaining quota: `\"write\";r=119;t=1` is 119 writes, full again in 1 s"),
        ("Retry-After", "Seconds after which the same request may succeed"),
        ("Location", "The operation (202) or the created resource (201)"),
        ("ETag", "The version of the item, for `If-Match`"),
        ("Idempotency-Replayed", "`true` if this is the stored response of an earlier request with the same key"),
        ("Preference-Applied", "`wait=N` if `Prefer: wait=N` was applied"),
    ]
    .into_iter()
    .map(|(name, description)| (name, text(description)))
}

fn parameters() -> impl Iterator<Item = (&'static str, Parameter)> {
    let header = |name: &str, description: &str| {
        let schema = Object::with_type(Type::String);
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::False);
        parameter.description(Some(description)).schema(Some(schema)).build()
    };
    let validate_only = ParameterBuilder::new()
        .name("validate_only")
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(
            "Dry run: with `true` the request is validated (permission, body, names, limits) and nothing is changed. \
             Answers 200 with the resource as it would be, with placeholder IDs and empty secrets, or 204",
        ))
        .schema(Some(Object::with_type(Type::Boolean)))
        .build();
    let key = "At most 255 characters, kept 24 hours per caller, method and path, the newest 2000 of a user. A request repeated with the same key \
               is executed once and answered alike; 5xx answers and retryable problems are not stored";
    [
        (
            "XRequestId",
            header("X-Request-Id", "A request ID chosen by the caller: at most 64 letters, digits, `-`, `_` and `.`"),
        ),
        ("IdempotencyKey", header("Idempotency-Key", key)),
        ("Prefer", header("Prefer", "`wait=N`: same as `?wait=N`")),
        ("ValidateOnly", validate_only),
    ]
    .into_iter()
}

fn document_operation(method: &str, operation: &mut Operation) {
    let open = open(operation);
    let waits = named(operation, &ParameterIn::Query).iter().any(|name| name == "wait");
    let (changes, keyed) = (method != "GET", ["POST", "PATCH"].contains(&method) && !open);
    let common = [("XRequestId", true), ("ValidateOnly", changes), ("IdempotencyKey", keyed), ("Prefer", waits)];
    let common = common.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| parameter(name));
    operation.parameters.get_or_insert_default().extend(common);
    if changes {
        document_dry_run(method, operation);
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            answered(status, response, (open, keyed, waits));
        }
    }
    problems(method, operation, open);
}

fn parameter(name: &str) -> RefOr<Parameter> {
    RefOr::Ref(Ref::new(format!("#/components/parameters/{name}")))
}

fn header(response: &mut Response, name: &str) {
    let reference = RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
    response.headers.insert(name.to_owned(), reference);
}

/// What `validate_only` answers, where nothing else answers that status.
fn document_dry_run(method: &str, operation: &mut Operation) {
    let gone = method == "DELETE" || open(operation);
    let responses = &mut operation.responses.responses;
    let status = if gone { "204" } else { "200" };
    if responses.contains_key(status) {
        return;
    }
    let like = responses.get("202").or_else(|| responses.get("201")).cloned();
    let Some(RefOr::T(mut response)) = like else { return };
    response.description = "Validation succeeded; nothing was changed (with `validate_only=true`)".to_owned();
    if gone {
        response.content.clear();
    }
    responses.insert(status.to_owned(), RefOr::T(response));
}

/// The headers of an answer that is no problem.
fn answered(status: &str, response: &mut Response, (open, keyed, waits): (bool, bool, bool)) {
    header(response, "X-Request-Id");
    if !open {
        header(response, "RateLimit-Policy");
        header(response, "RateLimit");
    }
    if !open && (status == "202" || status == "201") {
        header(response, "Location");
    }
    if keyed {
        header(response, "Idempotency-Replayed");
    }
    if waits && status != "204" {
        header(response, "Preference-Applied");
    }
    if versioned(response) {
        header(response, "ETag");
    }
}

fn versioned(response: &Response) -> bool {
    response.content.values().any(|content| match content {
        RefOr::T(content) => matches!(&content.schema, Some(RefOr::Ref(schema))
            if VERSIONED.iter().any(|name| schema.ref_location.ends_with(&format!("/{name}")))),
        RefOr::Ref(_) => false,
    })
}

/// One answer for each status that a problem of this operation may have; its codes are told with the component.
fn problems(method: &str, operation: &mut Operation, open: bool) {
    let body = operation.request_body.is_some();
    let (changes, location) = (method != "GET", !named(operation, &ParameterIn::Path).is_empty());
    let matched = named(operation, &ParameterIn::Header).iter().any(|name| name == "If-Match");
    let possible = |status: u16| match status {
        401 => changes || !open,
        403 | 409 => changes,
        404 => location,
        412 => matched,
        413 | 415 => body,
        429 => changes || !open,
        405 | 504 => false,
        _ => true,
    };
    for status in by_status().into_keys().filter(|status| possible(*status)) {
        let problem = RefOr::Ref(Ref::from_response_name(format!("Problem{status}")));
        operation.responses.responses.entry(status.to_string()).or_insert(problem);
    }
}

fn problem(status: u16, codes: &[String]) -> Response {
    let listed: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let mut response = ResponseBuilder::new().description(listed.join(", ")).content(PROBLEM, content).build();
    header(&mut response, "X-Request-Id");
    if [409, 429, 503].contains(&status) {
        header(&mut response, "Retry-After");
    }
    if status == 412 {
        header(&mut response, "ETag");
    }
    response
}

/// The codes of the catalog by status, without those of pages.
fn by_status() -> BTreeMap<u16, Vec<String>> {
    let elsewhere = [
        &catalog::BAD_CREDENTIALS,
        &catalog::PASSWORD_LINK_INVALID,
        &catalog::ROUTE_NOT_FOUND,
        &catalog::STREAM_LIMIT_EXCEEDED,
        &catalog::STREAMS_FULL,
    ];
    let elsewhere = elsewhere.map(|entry| entry.code);
    let mut codes = BTreeMap::<u16, Vec<String>>::new();
    for entry in catalog::of_requests().into_iter().filter(|entry| !elsewhere.contains(&entry.code.as_str())) {
        codes.entry(entry.status).or_default().push(entry.code);
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> OpenApi {
        crate::openapi()
    }

    #[test]
    fn every_change_can_be_tried_out_and_every_write_repeated() {
        let document = document();
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(&mut item.clone()) {
                let references: Vec<String> = operation
                    .parameters
                    .iter()
                    .flatten()
                    .filter_map(|parameter| match parameter {
                        RefOr::Ref(reference) => reference.ref_location.rsplit('/').next().map(ToOwned::to_owned),
                        RefOr::T(_) => None,
                    })
                    .collect();
                let has = |name: &str| references.iter().any(|known| known == name);
                assert_eq!(has("ValidateOnly"), method != "GET", "{method} {path}");
                assert_eq!(
                    has("IdempotencyKey"),
                    ["POST", "PATCH"].contains(&method) && !open(operation),
                    "{method} {path}"
                );
                assert!(has("XRequestId"), "{method} {path}");
            }
        }
    }

    #[test]
    fn the_guard_knows_every_query_parameter() {
        let routes = routes(&document());
        let known = |path: &str, method: &str| &routes[&(format!("/api/v1{path}"), method.to_owned())];
        assert_eq!(known("/clusters/{cls}", "DELETE").queries, ["wait", "force", "validate_only"]);
        assert_eq!(known("/projects/{prj}/clusters", "GET").queries, ["limit", "cursor", "name"]);
        assert!(known("/setup", "POST").open && known("/errors", "GET").open && !known("/me", "GET").open);
    }
}
