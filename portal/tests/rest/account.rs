//! One's own account: the password, the sessions, the operator's link; and that guessing is slow however it is done.

use crate::sessions::{from, me, over_tls, pair, set_up, sign_in};
use crate::world::{Answer, PASSWORD, Things, World};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use migrations::{ExposeSecret, Role};
use portal::error::Error;
use portal::state::AppState;
use serde_json::{Value, json};

const NEW: &str = "another long password";

/// Calls REST from a browser.
async fn call(world: &World, cookie: &str, (method, path): (&str, &str), body: Value) -> Answer {
    let request = Request::builder().method(method).uri(format!("/api/v1{path}")).header("cookie", cookie);
    let request = request.header("content-type", "application/json").header("sec-fetch-site", "same-origin");
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    world.send(over_tls(request.body(body).unwrap())).await
}

/// Opens a page, or posts a form there.
async fn page(world: &World, cookie: &str, (path, form): (&str, Option<&str>)) -> Answer {
    let method = if form.is_some() { "POST" } else { "GET" };
    let request = Request::builder().method(method).uri(path).header("cookie", cookie);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("sec-fetch-site", "same-origin").body(Body::from(form.unwrap_or_default().to_owned()));
    world.send(over_tls(request.unwrap())).await
}

async fn signed_in(state: &AppState) -> String {
    let cookies = sign_in(state, (from(1, true), ""), ("ana@example.com", PASSWORD)).await.unwrap();
    pair(cookies.session.to_str().unwrap())
}

#[tokio::test]
async fn a_changed_password_ends_the_other_sessions() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let (first, second) = (set_up(&world, &state).await, signed_in(&state).await);
    let change = async |current: &str, new: &str| {
        let body = json!({"current_password": current, "new_password": new});
        call(&world, &first, ("POST", "/me/password"), body).await
    };
    let wrong = change("wrong", NEW).await;
    assert_eq!(
        (wrong.code().as_str(), &wrong.json()["errors"][0]["pointer"]),
        ("VALIDATION_FAILED", &json!("/current_password"))
    );
    let short = change(PASSWORD, "short").await;
    assert_eq!(short.json()["errors"][0]["pointer"], "/new_password");
    assert_eq!(world.send(me(&second)).await.status, StatusCode::OK);
    let changed = change(PASSWORD, NEW).await;
    assert_eq!((changed.status, &changed.json()["ended"]), (StatusCode::OK, &json!(1)), "{}", changed.text);
    assert_eq!(world.send(me(&second)).await.code(), "UNAUTHENTICATED");
    assert_eq!(world.send(me(&first)).await.status, StatusCode::OK, "the one that asked stays");
    let old = sign_in(&state, (from(2, true), ""), ("ana@example.com", PASSWORD)).await;
    assert!(matches!(old, Err(Error::BadCredentials)));
    sign_in(&state, (from(2, true), ""), ("ana@example.com", NEW)).await.unwrap();
}

#[tokio::test]
async fn the_present_password_cannot_be_guessed_with_a_session_either() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let cookie = set_up(&world, &state).await;
    let mut codes = Vec::new();
    for _ in 0..11 {
        let body = json!({"current_password": "wrong", "new_password": NEW});
        // Trying out is counted as well.
        codes.push(call(&world, &cookie, ("POST", "/me/password?validate_only=true"), body).await.code());
    }
    assert_eq!(codes[9], "VALIDATION_FAILED");
    assert_eq!(codes[10], "RATE_LIMITED");
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let (first, second) = (set_up(&world, &state).await, signed_in(&state).await);
    let third = signed_in(&state).await;
    let listed = call(&world, &second, ("GET", "/me/sessions"), Value::Null).await.json();
    let items = listed["items"].as_array().unwrap().clone();
    let current: Vec<bool> = items.iter().map(|item| item["current"].as_bool().unwrap()).collect();
    assert_eq!(current, [false, true, false], "{listed}");
    assert_eq!((&items[0]["network"], items[0]["object"].as_str()), (&json!("192.0.2.0/24"), Some("session")));
    assert!(!listed.to_string().contains(&first["__Host-pilothouse_session=".len()..]));
    let path = items[0]["links"]["self"].as_str().unwrap().trim_start_matches("/api/v1").to_owned();
    assert_eq!(call(&world, &second, ("DELETE", &path), Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(call(&world, &second, ("DELETE", &path), Value::Null).await.code(), "NOT_FOUND");
    assert_eq!(world.send(me(&first)).await.code(), "UNAUTHENTICATED");
    assert_eq!(call(&world, &second, ("DELETE", "/me/sessions"), Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.send(me(&third)).await.code(), "UNAUTHENTICATED");
    assert_eq!(world.send(me(&second)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_small_token_has_no_business_with_the_account() {
    let world = World::new().await;
    let things = Things::new(&world).await;
    let routes = [("GET", "/me/sessions"), ("DELETE", "/me/sessions"), ("DELETE", "/me/sessions/{ses}")];
    let password = json!({"current_password": PASSWORD, "new_password": NEW});
    for role in [Role::Viewer, Role::Editor] {
        let token = world.token(&things.ana, &things.organization, role).await;
        for (method, path) in routes {
            let answer = world.call(method, &things.path(path), &token, Value::Null).await;
            assert_eq!(answer.code(), "PERMISSION_DENIED", "{method} {path}");
        }
        assert_eq!(world.call("POST", "/me/password", &token, password.clone()).await.code(), "PERMISSION_DENIED");
    }
}

#[tokio::test]
async fn guesses_from_everywhere_run_dry_and_the_owner_still_gets_in() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    set_up(&world, &state).await;
    let cookies = sign_in(&state, (from(1, true), ""), ("ana@example.com", PASSWORD)).await.unwrap();
    let browser = pair(cookies.device.to_str().unwrap());
    for account in ["ana@example.com", "nobody@example.com"] {
        let mut outcomes = Vec::new();
        for last in 2..30 {
            outcomes.push(sign_in(&state, (from(last, true), ""), (account, "wrong")).await);
        }
        let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::RateLimited { .. }))).count();
        assert_eq!(refused, 8, "{account}: 20 guesses, whether it exists or not");
    }
    let elsewhere = sign_in(&state, (from(99, true), ""), ("ana@example.com", PASSWORD)).await;
    assert!(matches!(elsewhere, Err(Error::RateLimited { .. })));
    let forged = browser.replace("__Host-pilothouse_device=", "__Host-pilothouse_device=9");
    let forged = sign_in(&state, (from(99, true), &forged), ("ana@example.com", PASSWORD)).await;
    assert!(matches!(forged, Err(Error::RateLimited { .. })));
    sign_in(&state, (from(99, true), &browser), ("ana@example.com", PASSWORD)).await.unwrap();
    // The same cookie opens no other account, and its own not without the password.
    let other = sign_in(&state, (from(99, true), &browser), ("nobody@example.com", PASSWORD)).await;
    assert!(matches!(other, Err(Error::RateLimited { .. })));
    let wrong = sign_in(&state, (from(99, true), &browser), ("ana@example.com", "wrong")).await;
    assert!(matches!(wrong, Err(Error::BadCredentials)));
}

#[tokio::test]
async fn the_operators_link_sets_the_password_once() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let session = set_up(&world, &state).await;
    let (secret, _) = world.store.identity().create_password_reset("ana@example.com").await.unwrap();
    let path = format!("/reset/{}", secret.expose_secret());
    let form = page(&world, "", (&path, None)).await;
    assert!(form.status == StatusCode::OK && form.text.contains("name=\"password\""), "{}", form.text);
    assert_eq!(form.header("referrer-policy"), "strict-origin");
    let short = page(&world, "", (&path, Some("password=short"))).await;
    assert!(short.status == StatusCode::UNPROCESSABLE_ENTITY && short.text.contains("at least 12"), "{}", short.text);
    assert_eq!(world.send(me(&session)).await.status, StatusCode::OK);
    let set = page(&world, "", (&path, Some("password=another+long+password"))).await;
    assert_eq!((set.status, set.header("location")), (StatusCode::SEE_OTHER, "/clusters"), "{}", set.text);
    let cookie = pair(set.headers.get("set-cookie").unwrap().to_str().unwrap());
    assert_eq!(world.send(me(&cookie)).await.status, StatusCode::OK);
    assert_eq!(world.send(me(&session)).await.code(), "UNAUTHENTICATED");
    for form in [None, Some("password=a+third+long+password")] {
        let again = page(&world, "", (&path, form)).await;
        assert_eq!(again.status, StatusCode::UNAUTHORIZED);
        assert!(
            again.text.contains("invalid, used or expired") && !again.text.contains("name=\"password\""),
            "{}",
            again.text
        );
        assert!(!again.text.contains(secret.expose_secret()));
    }
    sign_in(&state, (from(3, true), ""), ("ana@example.com", NEW)).await.unwrap();
}

#[tokio::test]
async fn the_page_shows_the_sessions_and_changes_the_password() {
    let world = World::new().await;
    let state = AppState::new(world.config.clone());
    let (first, second) = (set_up(&world, &state).await, signed_in(&state).await);
    assert_eq!(page(&world, "", ("/account", None)).await.header("location"), "/signin?next=/account");
    let shown = page(&world, &first, ("/account", None)).await;
    assert_eq!(shown.text.matches("<tr id=\"session-").count(), 2, "{}", shown.text);
    assert_eq!(shown.text.matches("this browser").count(), 1);
    let wrong =
        page(&world, &first, ("/account/password", Some("current_password=x&new_password=another+long+password")))
            .await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("current password is wrong"));
    assert!(!wrong.text.contains("another long password"), "nothing typed comes back");
    let form = format!("current_password={}&new_password=another+long+password", PASSWORD.replace(' ', "+"));
    let changed = page(&world, &first, ("/account/password", Some(&form))).await;
    assert!(changed.text.contains("Password changed"), "{}", changed.text);
    assert_eq!(world.send(me(&second)).await.code(), "UNAUTHENTICATED");
    let third = sign_in(&state, (from(4, true), ""), ("ana@example.com", NEW)).await.unwrap();
    let third = pair(third.session.to_str().unwrap());
    let ended = page(&world, &first, ("/account/sessions/end", Some(""))).await;
    assert_eq!((ended.status, ended.header("location")), (StatusCode::SEE_OTHER, "/account"));
    assert_eq!(world.send(me(&third)).await.code(), "UNAUTHENTICATED");
}
