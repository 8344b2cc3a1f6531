//! The store's contract: the same stories on a SQLite file and on a real PostgreSQL server.
//!
//! PostgreSQL is Debian's (`/usr/lib/postgresql/15/bin`, another folder by `PH_TEST_PG_BIN`); `PH_TEST_PG=0` leaves those stories out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's way to fail")]

#[path = "store/access.rs"]
mod access;
#[path = "store/audit.rs"]
mod audit;
#[path = "store/clusters.rs"]
mod clusters;
#[path = "store/enrollment.rs"]
mod enrollment;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/gateways.rs"]
mod gateways;
#[path = "store/harness.rs"]
mod harness;
#[path = "store/idempotency.rs"]
mod idempotency;
#[path = "store/identity.rs"]
mod identity;
#[path = "store/isolation.rs"]
mod isolation;
#[path = "store/operations.rs"]
mod operations;
#[path = "store/quotas.rs"]
mod quotas;
#[path = "store/retention.rs"]
mod retention;
#[path = "store/server.rs"]
mod server;
#[path = "store/spares.rs"]
mod spares;
#[path = "store/work.rs"]
mod work;

macro_rules! on_both {
    ($($module:ident::$story:ident,)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                crate::$module::$story(crate::harness::sqlite().await).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                if let Some(fixture) = crate::harness::postgres().await {
                    crate::$module::$story(fixture).await;
                }
            })+
        }
    };
}

on_both! {
    isolation::another_organizations_rows_are_not_there,
    clusters::a_wish_is_one_transaction,
    clusters::a_taken_name_leaves_nothing_behind,
    clusters::a_dropped_version_is_listed_and_deleted,
    clusters::every_cluster_has_a_user_of_its_own,
    clusters::a_cluster_and_its_first_pools_are_one_intent,
    clusters::reports_that_say_nothing_new_wake_nobody,
    clusters::deletion_marks_everything_under_it_once,
    clusters::purging_takes_every_row_and_ends_operations,
    clusters::forcing_a_deletion_is_written_down_and_reaches_every_node,
    clusters::pools_grow_shrink_and_go,
    clusters::certificates_are_made_once_and_sealed,
    clusters::certificates_are_replaced_only_when_seen,
    clusters::routes_are_found_by_label,
    spares::a_wish_takes_a_spare_over,
    spares::the_furthest_that_fits_is_taken,
    spares::each_gets_its_own,
    spares::a_broken_one_is_nobodys_beginning,
    spares::nobody_finds_a_spare,
    spares::what_is_made_ahead_has_time,
    enrollment::wrong_tokens_are_refused_by_name,
    enrollment::the_same_machine_gets_the_same_node,
    enrollment::a_removed_machine_stays_removed,
    enrollment::a_token_for_one_machine_fills_its_row,
    enrollment::machines_at_once_get_names_and_ranges_of_their_own,
    enrollment::a_full_pod_range_is_said_so,
    enrollment::a_cluster_that_lost_too_many_nodes_gets_no_more_for_a_day,
    enrollment::links_and_heartbeats,
    enrollment::a_removed_nodes_name_is_nobodys_for_a_while,
    enrollment::a_removal_is_in_writing_longer_than_everything_else,
    enrollment::a_configuration_is_exchanged_only_against_the_one_seen,
    enrollment::what_stands_is_told_at_once,
    gateways::a_link_is_where_it_last_came_up,
    gateways::links_of_a_gateway_that_ended_are_down,
    access::kubeconfigs_are_signed_accepted_and_refused,
    access::kubeconfigs_without_authority_are_released,
    access::the_next_kubeconfig_gets_the_prepared_authority,
    access::a_cluster_has_so_many_kubeconfigs,
    access::a_cluster_keeps_its_port,
    access::local_machines_and_access_of_others_exclude_each_other,
    access::join_tokens_make_their_pool,
    access::lists_have_all_that_can_be_used,
    access::join_tokens_that_ended_unused_go,
    access::secrets_are_in_no_debug_text,
    access::settings_keep_facts_and_secrets,
    identity::the_set_up_link_works_once,
    identity::the_machines_owner_may_come_first,
    identity::tokens_end,
    identity::sessions_end,
    identity::the_least_used_session_makes_room,
    identity::passwords_are_changed_and_reset,
    identity::a_token_in_a_new_network_is_noted,
    identity::what_people_do_is_in_the_audit_log,
    identity::organizations_and_projects,
    identity::names_of_organizations_are_no_oracle,
    quotas::each_resource_is_refused_beyond_its_limit,
    quotas::of_two_for_the_last_place_one_gets_it,
    quotas::a_limit_of_its_own_is_taken_back,
    quotas::a_refused_request_does_not_count_itself,
    quotas::nodes_are_counted_by_pool_and_by_machine,
    quotas::limits_are_set_for_one_and_for_all,
    idempotency::a_key_is_carried_out_once,
    idempotency::of_several_at_once_one_has_the_key,
    idempotency::what_was_made_is_known_after_a_crash,
    idempotency::a_refused_wish_is_not_made,
    idempotency::a_persons_keys_are_bounded,
    idempotency::a_rehearsal_checks_all_and_changes_nothing,
    retention::what_is_over_goes_in_its_time,
    retention::a_machines_token_goes_after_its_node,
    operations::steps_keep_their_history,
    operations::waiting_ends_with_the_operation,
    operations::audit_is_read_backwards,
    audit::tampering_is_found,
    audit::a_log_put_back_or_removed_whole_is_found,
    audit::the_numbers_over_all_logs_are_signed,
    audit::a_checkpoint_shows_a_database_put_back,
    audit::entries_of_before_the_numbers_are_taken_over,
    audit::what_was_changed_is_not_dropped_for_its_age,
    audit::without_its_key_the_log_is_not_begun_again,
    audit::two_writers_make_one_chain,
    audit::old_entries_go_and_the_rest_still_holds,
    audit::entries_are_found_by_what_they_say,
    audit::what_repeats_is_written_rarely,
    audit::entries_of_before_the_chain_are_taken_over,
    work::everything_is_claimed_exactly_once,
    work::a_lease_ends_and_its_holder_is_fenced,
    work::a_wish_during_the_work_is_not_lost,
    work::settling_plans_the_next_look,
    work::news_travel_after_commit_and_not_before,
    faults::three_may_migrate_at_once,
    faults::a_wrong_key_is_refused,
    faults::everything_is_sealed_again_under_a_new_key,
    faults::a_made_up_token_waits_for_no_writer,
    faults::a_newer_schema_is_refused,
    faults::a_locked_database_is_unavailable_and_then_works,
}
