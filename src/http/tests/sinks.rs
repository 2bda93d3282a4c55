//! Who may pause a sink, and what becomes of it.

use super::*;

const TOKEN: &str = "Authorization: Bearer operate!\r\n";

#[tokio::test]
async fn only_the_token_pauses_and_resumes_a_sink() {
    let server = Server::start().await;
    let pause = "/v1/sinks/redis/pause";
    for headers in [
        "",
        "Authorization: Bearer operate\r\n",
        "Authorization: Basic operate!\r\n",
    ] {
        let reply = server.ask("POST", pause, headers).await;
        reply.problem(401);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    let paused = |reply: &Reply| reply.json()["items"][0]["paused"].clone();
    assert_eq!(paused(&server.get("/v1/sinks").await), false);
    assert_eq!(server.ask("POST", pause, TOKEN).await.status, 200);
    assert_eq!(paused(&server.get("/v1/sinks").await), true);
    assert_eq!(
        server
            .ask("POST", "/v1/sinks/redis/resume", TOKEN)
            .await
            .status,
        200
    );
    assert_eq!(paused(&server.get("/v1/sinks").await), false);
}

#[tokio::test]
async fn a_sink_that_is_not_here_and_a_token_that_is_not_set_are_told() {
    let server = Server::start().await;
    server
        .ask("POST", "/v1/sinks/kafka/pause", TOKEN)
        .await
        .problem(404);
    let reply = server.get("/v1/sinks/redis/pause").await;
    reply.problem(405);
    assert_eq!(reply.header("allow"), Some("POST"));
    let open = Server::start_with(|api| api.operate_token = None).await;
    open.ask("POST", "/v1/sinks/redis/pause", TOKEN)
        .await
        .problem(403);
}

#[tokio::test]
async fn readiness_names_the_sink_that_is_unwell() {
    let server = Server::start().await;
    server.health.set_ready("content");
    server.health.set_unwell("sink-redis", "connection refused");
    let reply = server.get("/readyz").await;
    assert_eq!(reply.status, 200, "everything else goes on");
    assert_eq!(reply.json()["unwell"]["sink-redis"], "connection refused");
    let sink = server.get("/v1/sinks").await.json()["items"][0].clone();
    assert_eq!(
        (&sink["well"], &sink["reason"]),
        (&false.into(), &"connection refused".into())
    );
    server.health.set_well("sink-redis");
    assert_eq!(
        server.get("/readyz").await.json(),
        serde_json::json!({"ready": true})
    );
}
