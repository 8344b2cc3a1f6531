-- Rows as each step's schema wants them, put in right after it: `step` begins what belongs to one.
-- @uNNN is the id NNN, @tNNN the same as the text of a cluster's id, @far the year 2100, @now the present; @pki, @secret, @authority and
-- @answer are sealed under the test's key.

-- step m0001_tenancy
INSERT INTO organizations (id, name, display_name, created_at) VALUES (@u010, 'acme', 'Acme', 1000), (@u011, 'umbrella', 'Umbrella', 1001);
INSERT INTO projects (id, organization, name, display_name, created_at) VALUES (@u020, @u010, 'default', 'Default', 1000);
INSERT INTO users (id, email, display_name, password_hash, created_at) VALUES
  (@u030, 'ann@example.com', 'Ann', '$argon2id$v=19$m=16,t=2,p=1$c2FsdHNhbHQ$4pZ2', 1000), (@u031, 'ben@example.com', 'Ben', NULL, 1001);
INSERT INTO members (organization, "user", role) VALUES (@u010, @u030, 'owner'), (@u010, @u031, 'viewer'), (@u011, @u031, 'admin');
INSERT INTO api_tokens (id, organization, "user", name, role, hash, expires_at, last_used_at, created_at)
  VALUES (@u040, @u010, @u030, 'ci', 'editor', 'h40', NULL, 2000, 1000), (@u041, @u010, @u031, 'look', 'viewer', 'h41', @far, NULL, 1001);
INSERT INTO sessions (hash, "user", created_at, expires_at) VALUES ('before', @u030, 1000, @far);
INSERT INTO hosts (id, name, created_at) VALUES (@u050, 'local', 1000);

-- step m0002_clusters
INSERT INTO clusters (id, project, organization, host, name, spec, generation, observed_generation, state, state_message, conditions,
    endpoint, problem, operation, deletion_requested_at, created_at, updated_at) VALUES
  (@u060, @u020, @u010, @u050, 'demo',
    '{"version":"1.35.4","pod_cidr":"10.244.0.0/16","service_cidr":"10.96.0.0/16","replicas":1,"labels":{"team":"web"}}', 3, 3, 'running',
    'Running', '[{"type":"Ready","status":"True","reason":"Answers","message":"It answers","observed_generation":3,"last_transition_time":"2026-01-31T09:30:00Z"}]',
    '10.0.0.9:6443', NULL, @u110, NULL, 1000, 2000),
  (@u061, @u020, @u010, @u050, 'broken', '{"version":"1.35.4"}', 2, 1, 'error', 'Host unreachable', '[]', NULL,
    '{"code":"HOST_UNREACHABLE","class":"platform","detail":"no route","remediation":"Retrying automatically."}', NULL, 1500, 1001, 2001);
INSERT INTO cluster_pki (cluster, sealed, link_trust, created_at) VALUES (@u060, @pki, 'link trust', 1000);

-- step m0003_nodes
INSERT INTO node_pools (id, cluster, organization, name, kind, count, generation, observed_generation, state, state_message, problem,
    operation, deletion_requested_at, created_at, updated_at) VALUES
  (@u070, @u060, @u010, 'web', 'local', 2, 2, 1, 'scaling', 'Scaling', NULL, NULL, NULL, 1000, 2000),
  (@u071, @u060, @u010, 'byo', 'byo', 0, 1, 1, 'ready', 'Ready', NULL, NULL, NULL, 1001, 2001),
  (@u072, @u061, @u010, 'web', 'local', 1, 1, 0, 'pending', 'Queued', NULL, NULL, 1500, 1002, 2002);
INSERT INTO nodes (id, cluster, pool, organization, name, state, state_message, pod_cidr, machine_fingerprint, facts, link_connected,
    last_seen_at, removed, problem, operation, deletion_requested_at, created_at, updated_at) VALUES
  (@u080, @u060, @u070, @u010, 'web-abcde', 'ready', 'Ready', '10.244.0.0/24', 'fingerprint',
    '{"kubelet_version":"v1.35.4","os":"Debian 12","arch":"amd64","kernel":"6.1","addresses":["192.0.2.7"]}', TRUE, 2000, FALSE, NULL, NULL,
    NULL, 1000, 2000),
  (@u081, @u060, @u071, @u010, 'laptop', 'deleting', 'Deleting', '10.244.1.0/24', NULL, '{}', FALSE, NULL, TRUE, NULL, NULL, 1500, 1001, 2001);

-- step m0004_access
INSERT INTO join_tokens (id, cluster, pool, organization, node, hash, expires_at, max_uses, uses, revoked_at, created_at) VALUES
  (@u090, @u060, @u071, @u010, NULL, 'h90', @far, 5, 1, NULL, 1000), (@u091, @u060, @u070, @u010, @u080, 'h91', @far, 1, 0, 1500, 1001);
INSERT INTO join_token_uses (token, fingerprint, node, used_at) VALUES (@u090, 'fingerprint', @u080, 1500);
INSERT INTO kubeconfigs (id, cluster, organization, name, role, kind, serial, expires_at, revoked_at, bound, released, created_by, created_at)
  VALUES (@u100, @u060, @u010, 'laptop', 'admin', 'file', '01', @far, NULL, TRUE, FALSE, 'system', 1000),
  (@u101, @u061, @u010, 'ben', 'edit', 'file', NULL, @far, 1500, FALSE, FALSE, 'usr_gone', 1001);

-- step m0005_ledger
INSERT INTO operations (id, organization, cluster, kind, target, state, steps, problem, actor, version, created_at, finished_at) VALUES
  (@u110, @u010, @u060, 'cluster.create', '@t060', 'succeeded',
    '[{"key":"accepted","title":"Accept","state":"done","attempt":1,"started_at":"2026-01-31T09:30:00Z","finished_at":"2026-01-31T09:30:01Z","message":""}]',
    NULL, 'system', 3, 1000, 2000);
INSERT INTO work (kind, id, due_at, lease_until, lease_owner, failures, fence, wanted) VALUES
  ('cluster', @u060, 1000, NULL, '', 2, 4, 7), ('node_pool', @u070, @far, NULL, '', 0, 1, 1), ('node', @u080, @far, NULL, '', 0, 1, 1);
INSERT INTO audit (id, organization, actor, action, target, detail, created_at) VALUES
  (@u120, @u010, 'system', 'cluster.create', '@t060', 'demo', 1000), (@u121, NULL, 'system', 'host.add', 'local', '', 1001),
  (@u122, @u010, 'system', 'node.enroll', 'nod_1', 'web-abcde', 1002);
INSERT INTO settings (key, value, sealed) VALUES
  ('domain', 'example.org', NULL), ('ca', NULL, @secret), ('node-config/nod_1', '{"generation":4}', NULL);

-- step m0006_idempotency
INSERT INTO idempotency_keys (id, fingerprint, holder, made, answer, lease_until, expires_at) VALUES
  ('held', 'f1', @u130, '@t060', NULL, @far, @far), ('answered', 'f2', @u131, NULL, @answer, 0, @far);

-- step m0007_drain
UPDATE nodes SET drain_ends_at = 1600 WHERE id = @u081;

-- step m0008_departed
INSERT INTO departed_nodes (cluster, name, until) VALUES (@u060, 'web-gone', @far);

-- step m0010_tombstones
INSERT INTO node_tombstones (node, cluster, name, removed_at, until) VALUES (@u082, @u060, 'web-gone', @now, @far);
INSERT INTO deleted_clusters (cluster, link_trust, until) VALUES (@u062, 'old trust', @far);
UPDATE nodes SET config_generation = 9, config_digest = 'abc', registration = 1, registration_ordered_at = 1700 WHERE id = @u080;

-- step m0011_kubeconfig_authorities
INSERT INTO cluster_ports (port, cluster) VALUES (30001, @u060);
UPDATE kubeconfigs SET authority = 'PEM' WHERE id = @u100;

-- step m0012_quotas
INSERT INTO quotas (holder, resource, most) VALUES (@u010, 'clusters', 5), (@u030, 'organizations', 3);

-- step m0013_accounts
INSERT INTO sessions (hash, id, "user", created_at, last_used_at, expires_at, address, user_agent)
  VALUES ('after', @u140, @u030, @now, @now, @far, '192.0.2.0/24', 'Firefox');
INSERT INTO password_resets ("user", hash, created_at, expires_at) VALUES (@u030, 'h', 1000, @far);
UPDATE api_tokens SET addresses = '["192.0.2.0/24"]' WHERE id = @u040;

-- step m0016_force
UPDATE nodes SET forced = TRUE WHERE id = @u081;

-- step m0019_prepared_authorities
INSERT INTO kubeconfig_authorities (id, cluster, certificate, sealed, taken, since) VALUES (@u102, @u060, 'PEM', @authority, FALSE, @now);

-- step m0020_refused_nodes
UPDATE node_tombstones SET refused_at = @now WHERE node = @u082;

-- step m0023_gateways
INSERT INTO gateways (id, instance, address, started_at, expires_at) VALUES (@u146, @u147, '192.0.2.1:8443', 1000, @far);
UPDATE nodes SET link_gateway = @u146 WHERE id = @u080;
