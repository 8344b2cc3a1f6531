//! `pilothouse admin audit`: the operator reads the audit log, and looks whether it is as it was written.

use std::process::ExitCode;

use anyhow::{Context, Result};
use migrations::{AuditEntry, AuditFault, AuditFilter, AuditLog, AuditReport, Page};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::{open, organization};
use crate::doctor::Check;
use crate::instance::Instance;
use crate::options::{AdminAuditArgs, AdminAuditListArgs, AdminAuditVerb, AdminAuditVerifyArgs, InstanceArgs, Output};

/// Lists entries, or verifies all of them.
pub async fn audit(args: AdminAuditArgs) -> Result<ExitCode> {
    match args.verb {
        None => list(args.list).await,
        Some(AdminAuditVerb::Verify(args)) => verify(args).await,
    }
}

async fn list(args: AdminAuditListArgs) -> Result<ExitCode> {
    let (_, store) = open(&args.instance).await?;
    let organization = match args.organization {
        Some(name) => Some(organization(&store, &name).await?.id),
        None => None,
    };
    let filter = AuditFilter { action: args.action, ..AuditFilter::default() };
    let entries = store.audit().find(organization, &filter, Page::first(args.limit.into())).await?;
    match args.output {
        Output::Text => entries.iter().for_each(|entry| println!("{}", line(entry))),
        Output::Json => println!("{}", json!({ "items": entries.iter().map(shape).collect::<Vec<_>>() })),
    }
    Ok(ExitCode::SUCCESS)
}

fn when(entry: &AuditEntry) -> String {
    let time = entry.created_at.replace_nanosecond(0).unwrap_or(entry.created_at);
    time.format(&Rfc3339).unwrap_or_default()
}

/// Tenants' words are in it: nothing that moves a terminal is printed.
fn line(entry: &AuditEntry) -> String {
    let address = entry.address.as_deref().unwrap_or("-");
    let parts = [&when(entry), &entry.action, &entry.actor, &entry.target, address, &entry.detail];
    parts.join("  ").chars().filter(|letter| !letter.is_control()).collect()
}

fn shape(entry: &AuditEntry) -> serde_json::Value {
    json!({
        "id": entry.id,
        "organization_id": entry.organization,
        "actor": entry.actor,
        "action": entry.action,
        "target": entry.target,
        "detail": entry.detail,
        "address": entry.address,
        "created_at": when(entry),
    })
}

async fn verify(args: AdminAuditVerifyArgs) -> Result<ExitCode> {
    let (_, store) = open(&args.common.instance).await?;
    let report = store.audit().verify(args.checkpoint.as_ref()).await.context("read the audit log")?;
    match args.common.output {
        Output::Text => print(&report),
        Output::Json => println!("{}", document(&report)),
    }
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &AuditReport) {
    for fault in &report.faults {
        println!("{}", describe(fault));
    }
    let AuditReport { chains, entries, faults, checkpoint } = report;
    println!("{entries} entries of {chains} chains read, {} faults", faults.len());
    if let Some(checkpoint) = checkpoint {
        println!("checkpoint {checkpoint}");
    }
}

/// A fault for people: which log, which entry, what is wrong.
fn describe(fault: &AuditFault) -> String {
    let whose = match fault.log {
        AuditLog::Organization(organization) => organization.to_string(),
        AuditLog::Platform => "the platform".to_owned(),
        AuditLog::All => "all logs".to_owned(),
    };
    let entry = fault.id.map_or_else(|| format!("entry {}", fault.sequence), |id| format!("entry {id}"));
    format!("{whose}: {entry}: {}", fault.kind.text())
}

fn document(report: &AuditReport) -> serde_json::Value {
    let faults = report.faults.iter().map(|fault| {
        let (log, organization) = match fault.log {
            AuditLog::Organization(organization) => ("organization", Some(organization)),
            AuditLog::Platform => ("platform", None),
            AuditLog::All => ("all", None),
        };
        json!({
            "log": log,
            "organization_id": organization,
            "sequence": fault.sequence,
            "id": fault.id,
            "problem": fault.kind.text(),
        })
    });
    json!({
        "chains": report.chains,
        "entries": report.entries,
        "faults": faults.collect::<Vec<_>>(),
        "checkpoint": report.checkpoint.as_ref().map(ToString::to_string),
    })
}

/// The same for `doctor`.
pub async fn check(instance: &Instance) -> Check {
    const NAME: &str = "audit";
    let args = InstanceArgs { name: instance.name.clone(), data_dir: Some(instance.dir.clone()) };
    let looked = async {
        let (_, store) = open(&args).await?;
        store.audit().verify(None).await.context("read the audit log")
    };
    match looked.await {
        Ok(report) => match report.faults.first() {
            None => Check::pass(NAME, format!("the audit log's {} entries are as they were written", report.entries)),
            Some(first) => Check::fail(
                NAME,
                format!("the audit log was changed behind the platform's back: {}", describe(first)),
                "find out who can write the database; compare with a backup; `pilothouse admin audit verify` lists all",
            ),
        },
        Err(error) => Check::warn(NAME, format!("the audit log was not read: {error:#}"), "look at the database"),
    }
}
