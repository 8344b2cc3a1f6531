//! Sessions of browsers: sign in, the cookie, same-site only, sign out.

use crate::world::{PASSWORD, World};
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use migrations::ExposeSecret;
use portal::Connection;
use portal::app::sessions::{self, Attempt, Cookies};
use portal::app::setup;
use portal::error::Error;
use portal::state::AppState;

pub fn from(last: u8, tls: bool) -> Connection {
    Connection { address: [192, 0, 2, last].into(), tls }
}

/// Signs in from a browser with these cookies.
pub async fn sign_in(
    state: &AppState,
    (connection, cookies): (Connection, &str),
    (email, password): (&str, &str),
) -> Result<Cookies, Error> {
    let mut headers = HeaderMap::new();
    headers.insert("cookie", cookies.parse().unwrap());
    sessions::sign_in(state, Attempt { email, password, headers: &headers, connection: &connection }).await
}

/// A world whose first owner set up in a browser; gives the cookie pair of that session.
pub async fn set_up(world: &World, state: &AppState) -> String {
    let token = world.store.identity().create_setup_token().await.unwrap();
    let input = api_types::Setup {
        token: token.expose_secret().into(),
        email: "Ana@Example.com".into(),
        display_name: None,
        password: PASSWORD.into(),
    };
    let made = setup::complete_in_browser(state, (&HeaderMap::new(), &from(1, true)), input).await.unwrap();
    pair(made.session.to_str().unwrap())
}

/// `name=value` of a Set-Cookie line.
pub fn pair(line: &str) -> String {
    line.split(';').next().unwrap().to_owned()
}

/// As the gateway hands a request on.
pub fn over_tls(mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(from(1, true));
    request
}

pub fn me(cookie: &str) -> Request<Body> {
    over_tls(Request::get("/api/v1/me").header("cookie", format!("theme=dark; {cookie}")).body(Body::empty()).unwrap())
}

#[tokio::test]
async fn a_session_lives_from_sign_in_to_sign_out() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let first = set_up(&world, &state).await;
    assert_eq!(world.send(me(&first)).await.json()["authenticated_by"], "session");
    let second = sign_in(&state, (from(1, true), ""), (" ana@example.com", PASSWORD)).await.unwrap();
    let line = second.session.to_str().unwrap();
    let device = second.device.to_str().unwrap();
    assert!(device.starts_with("__Host-") && device.contains("; HttpOnly") && device.ends_with("; Secure"), "{device}");
    assert!(line.contains("; HttpOnly; SameSite=Lax;") && line.ends_with("; Secure"), "{line}");
    assert_ne!(pair(line), first);
    assert!(line.starts_with("__Host-") && line.contains("; Path=/;") && !line.contains("Domain"), "{line}");
    // A neighbor under the same domain can set a cookie of the plain name, and it means nothing here.
    let plain = pair(line).replace("__Host-", "");
    assert_eq!(world.send(me(&plain)).await.code(), "UNAUTHENTICATED");
    assert_eq!(world.send(me(&pair(line))).await.json()["user"]["display_name"], "Ana");
    let mut headers = HeaderMap::new();
    headers.insert("cookie", pair(line).parse().unwrap());
    let cleared = sessions::sign_out(&state, &headers, &from(1, true)).await.unwrap();
    assert!(cleared.to_str().unwrap().contains("Max-Age=0"), "{cleared:?}");
    let clear = sign_in(&state, (from(1, false), ""), ("ana@example.com", PASSWORD)).await.unwrap().session;
    assert!(!clear.to_str().unwrap().contains("Secure") && clear.to_str().unwrap().starts_with("pilothouse_session="));
    assert_eq!(world.send(me(&pair(line))).await.code(), "UNAUTHENTICATED");
    assert_eq!(world.send(me(&first)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn wrong_passwords_run_dry_for_that_address_only() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    set_up(&world, &state).await;
    let attempt =
        async |last: u8, email: &str, password: &str| sign_in(&state, (from(last, true), ""), (email, password)).await;
    assert!(matches!(attempt(2, "nobody@example.com", PASSWORD).await, Err(Error::BadCredentials)));
    for _ in 0..10 {
        assert!(matches!(attempt(2, "ana@example.com", "wrong").await, Err(Error::BadCredentials)));
    }
    assert!(matches!(attempt(2, "ana@example.com", PASSWORD).await, Err(Error::RateLimited { .. })));
    assert!(attempt(3, "ana@example.com", PASSWORD).await.is_ok());
}

#[tokio::test]
async fn a_cookie_changes_things_from_the_same_site_only() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let cookie = set_up(&world, &state).await;
    let post = |name: &str, headers: &[(&str, &str)]| {
        let mut request =
            Request::post("/api/v1/organizations").header("cookie", &cookie).header("host", "portal.test");
        for (header, value) in headers {
            request = request.header(*header, *value);
        }
        let body = Body::from(format!("{{\"name\":\"{name}\"}}"));
        request.header("content-type", "application/json").body(body).map(over_tls).unwrap()
    };
    let evil = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.test")];
    assert_eq!(world.send(post("one", &evil)).await.code(), "CROSS_SITE_REQUEST");
    assert_eq!(world.send(post("one", &[("origin", "https://evil.test")])).await.code(), "CROSS_SITE_REQUEST");
    let same = [("sec-fetch-site", "same-origin"), ("origin", "https://portal.test")];
    assert_eq!(world.send(post("one", &same)).await.status, StatusCode::CREATED);
    assert_eq!(world.send(post("two", &[("origin", "https://portal.test")])).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn sessions_past_their_time_are_dropped() {
    let world = World::new().await;
    let (ana, _) = world.ana().await;
    let session = |hash: &str, minutes: i64| migrations::NewSession {
        hash: hash.into(),
        user: ana.id,
        expires_at: time::OffsetDateTime::now_utc() + time::Duration::minutes(minutes),
        address: [192, 0, 2, 7].into(),
        network: "192.0.2.0/24".into(),
        user_agent: String::new(),
    };
    world.store.identity().put_session(session("live", 5)).await.unwrap();
    world.store.identity().put_session(session("ended", -5)).await.unwrap();
    assert_eq!(portal::clean(&world.store).await.unwrap(), 1);
    assert!(world.store.identity().session("live").await.unwrap().is_some());
    let cancel = tokio_util::sync::CancellationToken::new();
    cancel.cancel();
    portal::housekeeping(world.store.clone(), cancel).await;
}

#[tokio::test]
async fn people_who_are_not_signed_in_are_brought_to_the_sign_in_page() {
    let world = World::new().await;
    let answer = world.send(Request::get("/clusters").body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/signin?next=/clusters"));
    let fragment = Request::get("/clusters").header("hx-request", "true").body(Body::empty()).unwrap();
    let answer = world.send(fragment).await;
    assert_eq!((answer.status, answer.header("hx-redirect")), (StatusCode::UNAUTHORIZED, "/signin"));
    let answer = world.send(Request::get("/no-such-page").body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.header("content-type").starts_with("text/html"));
}
