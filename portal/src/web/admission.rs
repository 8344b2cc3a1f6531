//! The layer around every page of a person: their session, and how many requests they may send.

use crate::auth::rate::Kind;
use crate::auth::{Actor, of_browser};
use crate::error::Error;
use crate::state::AppState;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets a person in whose session is valid and who has requests left; the handlers find them as [`Actor`].
pub async fn admit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let actor: Actor = match of_browser(&mut parts, &state).await {
        Ok(actor) => actor,
        Err(error) => return error.into_response(),
    };
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let counted = state.rates().count(&actor, Kind::of(&parts.method, route));
    if let Err(error) = counted.granted() {
        return counted.with_headers(Error::into_response(error));
    }
    parts.extensions.insert(actor);
    counted.with_headers(next.run(Request::from_parts(parts, body)).await)
}
