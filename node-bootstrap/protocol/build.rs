//! Compiles the protocol without protoc.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/agent.proto");
    let files = protox::compile(["proto/agent.proto"], ["proto"])?;
    // The agent keeps the last accepted configuration on disk as JSON, readable by people.
    const KEPT: &str = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]";
    tonic_prost_build::configure()
        // In order, so that the same content has the same bytes: the platform keeps their digest.
        .btree_map(".pilothouse.agent.v1.NodeConfig")
        .type_attribute(".pilothouse.agent.v1.NodeConfig", KEPT)
        .type_attribute(".pilothouse.agent.v1.Part", KEPT)
        .type_attribute(".pilothouse.agent.v1.Signed", KEPT)
        .type_attribute(".pilothouse.agent.v1.Succession", KEPT)
        .type_attribute(".pilothouse.agent.v1.Check", KEPT)
        .field_attribute(".pilothouse.agent.v1.Part.kind", "#[serde(with = \"crate::grpc::words::part_kind\")]")
        .field_attribute(".pilothouse.agent.v1.Check.status", "#[serde(with = \"crate::grpc::words::check_status\")]")
        .compile_fds(files)?;
    Ok(())
}
