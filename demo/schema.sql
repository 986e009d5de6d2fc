-- A database shaped like KubePolaris (13 tables, as its models make them) and three small tables more, for what those lack:
-- a key of text, generated columns, and a table whose very name is a secret. Statements end with a semicolon and a line end.
CREATE DATABASE `kubepolaris` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
USE `kubepolaris`;
CREATE TABLE `users` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `username` varchar(50) NOT NULL,
  `password_hash` varchar(255) DEFAULT NULL,
  `salt` varchar(32) DEFAULT NULL,
  `email` varchar(100) DEFAULT NULL,
  `display_name` varchar(100) DEFAULT NULL,
  `phone` varchar(20) DEFAULT NULL,
  `auth_type` varchar(20) DEFAULT 'local',
  `status` varchar(20) DEFAULT 'active',
  `last_login_at` datetime(3) DEFAULT NULL,
  `last_login_ip` varchar(50) DEFAULT NULL,
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `idx_users_username` (`username`),
  KEY `idx_users_deleted_at` (`deleted_at`)
);
CREATE TABLE `clusters` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(100) NOT NULL,
  `api_server` varchar(255) NOT NULL,
  `kubeconfig_enc` text,
  `ca_enc` text,
  `sa_token_enc` text,
  `version` varchar(50) DEFAULT NULL,
  `status` varchar(20) DEFAULT 'unknown',
  `labels` json DEFAULT NULL,
  `cert_expire_at` datetime(3) DEFAULT NULL,
  `last_heartbeat` datetime(3) DEFAULT NULL,
  `created_by` bigint unsigned DEFAULT NULL,
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  `monitoring_config` json DEFAULT NULL,
  `alert_manager_config` json DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `idx_clusters_name` (`name`),
  KEY `idx_clusters_deleted_at` (`deleted_at`),
  CONSTRAINT `fk_clusters_creator` FOREIGN KEY (`created_by`) REFERENCES `users` (`id`)
);
CREATE TABLE `cluster_metrics` (
  `cluster_id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `node_count` bigint DEFAULT NULL,
  `ready_nodes` bigint DEFAULT NULL,
  `pod_count` bigint DEFAULT NULL,
  `running_pods` bigint DEFAULT NULL,
  `cpu_usage` double DEFAULT NULL,
  `memory_usage` double DEFAULT NULL,
  `storage_usage` double DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`cluster_id`),
  CONSTRAINT `fk_cluster_metrics_cluster` FOREIGN KEY (`cluster_id`) REFERENCES `clusters` (`id`)
);
CREATE TABLE `terminal_sessions` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `user_id` bigint unsigned NOT NULL,
  `cluster_id` bigint unsigned NOT NULL,
  `target_type` varchar(20) NOT NULL,
  `target_ref` json DEFAULT NULL,
  `namespace` varchar(100) DEFAULT NULL,
  `pod` varchar(100) DEFAULT NULL,
  `container` varchar(100) DEFAULT NULL,
  `node` varchar(100) DEFAULT NULL,
  `start_at` datetime(3) DEFAULT NULL,
  `end_at` datetime(3) DEFAULT NULL,
  `input_size` bigint DEFAULT '0',
  `replay_path` varchar(512) DEFAULT NULL,
  `replay_size` bigint DEFAULT '0',
  `status` varchar(20) DEFAULT 'active',
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `idx_terminal_sessions_deleted_at` (`deleted_at`),
  CONSTRAINT `fk_terminal_sessions_user` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`),
  CONSTRAINT `fk_clusters_terminal_session` FOREIGN KEY (`cluster_id`) REFERENCES `clusters` (`id`)
);
CREATE TABLE `terminal_commands` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `session_id` bigint unsigned NOT NULL,
  `timestamp` datetime(3) DEFAULT NULL,
  `raw_input` text,
  `parsed_cmd` varchar(1024) DEFAULT NULL,
  `exit_code` bigint DEFAULT NULL,
  `created_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `idx_terminal_commands_session_id` (`session_id`),
  CONSTRAINT `fk_terminal_sessions_commands` FOREIGN KEY (`session_id`) REFERENCES `terminal_sessions` (`id`)
);
CREATE TABLE `audit_logs` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `user_id` bigint unsigned NOT NULL,
  `action` varchar(100) NOT NULL,
  `resource_type` varchar(50) NOT NULL,
  `resource_ref` json DEFAULT NULL,
  `result` varchar(20) NOT NULL,
  `ip` varchar(45) DEFAULT NULL,
  `user_agent` varchar(500) DEFAULT NULL,
  `details` text,
  `created_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `idx_audit_logs_user_id` (`user_id`),
  CONSTRAINT `fk_audit_logs_user` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`)
);
CREATE TABLE `operation_logs` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `user_id` bigint unsigned DEFAULT NULL,
  `username` varchar(100) DEFAULT NULL,
  `method` varchar(10) DEFAULT NULL,
  `path` varchar(500) DEFAULT NULL,
  `query` varchar(1000) DEFAULT NULL,
  `module` varchar(50) DEFAULT NULL,
  `action` varchar(100) DEFAULT NULL,
  `cluster_id` bigint unsigned DEFAULT NULL,
  `cluster_name` varchar(100) DEFAULT NULL,
  `namespace` varchar(100) DEFAULT NULL,
  `resource_type` varchar(50) DEFAULT NULL,
  `resource_name` varchar(200) DEFAULT NULL,
  `request_body` text,
  `status_code` bigint DEFAULT NULL,
  `success` tinyint(1) DEFAULT NULL,
  `error_message` varchar(1000) DEFAULT NULL,
  `client_ip` varchar(45) DEFAULT NULL,
  `user_agent` varchar(500) DEFAULT NULL,
  `duration` bigint DEFAULT NULL,
  `created_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `idx_operation_logs_user_id` (`user_id`),
  KEY `idx_operation_logs_username` (`username`),
  KEY `idx_operation_logs_method` (`method`),
  KEY `idx_operation_logs_module` (`module`),
  KEY `idx_operation_logs_action` (`action`),
  KEY `idx_operation_logs_cluster_id` (`cluster_id`),
  KEY `idx_operation_logs_success` (`success`),
  KEY `idx_operation_logs_created_at` (`created_at`)
);
CREATE TABLE `system_settings` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `config_key` varchar(100) NOT NULL,
  `value` text,
  `type` varchar(50) DEFAULT NULL,
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `idx_system_settings_config_key` (`config_key`),
  KEY `idx_system_settings_deleted_at` (`deleted_at`)
);
CREATE TABLE `argocd_configs` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `cluster_id` bigint unsigned DEFAULT NULL,
  `enabled` tinyint(1) DEFAULT '0',
  `server_url` varchar(255) DEFAULT NULL,
  `auth_type` varchar(20) DEFAULT NULL,
  `token` text,
  `username` varchar(100) DEFAULT NULL,
  `password` text,
  `insecure` tinyint(1) DEFAULT '0',
  `git_repo_url` varchar(500) DEFAULT NULL,
  `git_branch` varchar(100) DEFAULT 'main',
  `git_path` varchar(255) DEFAULT NULL,
  `git_auth_type` varchar(20) DEFAULT NULL,
  `git_username` varchar(100) DEFAULT NULL,
  `git_password` text,
  `git_ssh_key` text,
  `argo_cd_cluster_name` varchar(100) DEFAULT NULL,
  `argo_cd_project` varchar(100) DEFAULT 'default',
  `connection_status` varchar(20) DEFAULT NULL,
  `last_test_at` datetime(3) DEFAULT NULL,
  `error_message` text,
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `idx_argocd_configs_cluster_id` (`cluster_id`),
  KEY `idx_argocd_configs_deleted_at` (`deleted_at`),
  CONSTRAINT `fk_argocd_configs_cluster` FOREIGN KEY (`cluster_id`) REFERENCES `clusters` (`id`)
);
CREATE TABLE `user_groups` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(50) NOT NULL,
  `description` varchar(255) DEFAULT NULL,
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `idx_user_groups_name` (`name`),
  KEY `idx_user_groups_deleted_at` (`deleted_at`)
);
CREATE TABLE `user_group_members` (
  `user_id` bigint unsigned NOT NULL,
  `user_group_id` bigint unsigned NOT NULL,
  PRIMARY KEY (`user_id`,`user_group_id`)
);
CREATE TABLE `cluster_permissions` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `cluster_id` bigint unsigned NOT NULL,
  `user_id` bigint unsigned DEFAULT NULL,
  `user_group_id` bigint unsigned DEFAULT NULL,
  `permission_type` varchar(50) NOT NULL,
  `namespaces` text,
  `custom_role_ref` varchar(200) DEFAULT NULL,
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `idx_cluster_permissions_cluster_id` (`cluster_id`),
  KEY `idx_cluster_permissions_user_id` (`user_id`),
  KEY `idx_cluster_permissions_user_group_id` (`user_group_id`),
  KEY `idx_cluster_permissions_deleted_at` (`deleted_at`),
  CONSTRAINT `fk_cluster_permissions_cluster` FOREIGN KEY (`cluster_id`) REFERENCES `clusters` (`id`),
  CONSTRAINT `fk_cluster_permissions_user` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`),
  CONSTRAINT `fk_cluster_permissions_user_group` FOREIGN KEY (`user_group_id`) REFERENCES `user_groups` (`id`)
);
CREATE TABLE `ai_configs` (
  `id` bigint unsigned NOT NULL AUTO_INCREMENT,
  `provider` varchar(50) NOT NULL DEFAULT 'openai',
  `endpoint` varchar(255) DEFAULT NULL,
  `api_key` text,
  `model` varchar(100) DEFAULT NULL,
  `enabled` tinyint(1) DEFAULT '0',
  `created_at` datetime(3) DEFAULT NULL,
  `updated_at` datetime(3) DEFAULT NULL,
  `deleted_at` datetime(3) DEFAULT NULL,
  PRIMARY KEY (`id`),
  KEY `idx_ai_configs_deleted_at` (`deleted_at`)
);
CREATE TABLE `api_tokens` (
  `token` varchar(64) COLLATE utf8mb4_bin NOT NULL,
  `user_id` bigint unsigned NOT NULL,
  `scopes` set('read','write','admin') NOT NULL DEFAULT 'read',
  `fingerprint` binary(16) DEFAULT NULL,
  `created_at` timestamp(6) NULL DEFAULT NULL,
  PRIMARY KEY (`token`),
  KEY `idx_api_tokens_user_id` (`user_id`),
  CONSTRAINT `fk_api_tokens_user` FOREIGN KEY (`user_id`) REFERENCES `users` (`id`) ON DELETE CASCADE
);
CREATE TABLE `cluster_capacity` (
  `cluster_id` bigint unsigned NOT NULL,
  `cpu_millis` int unsigned NOT NULL,
  `memory_mib` int unsigned NOT NULL,
  `cpu_cores` decimal(10,3) GENERATED ALWAYS AS (`cpu_millis` / 1000) VIRTUAL,
  `summary` varchar(60) GENERATED ALWAYS AS (concat(`cpu_millis`,'m / ',`memory_mib`,'Mi')) STORED,
  `load_average` float DEFAULT NULL,
  PRIMARY KEY (`cluster_id`),
  KEY `idx_cluster_capacity_cpu_cores` (`cpu_cores`)
);
CREATE TABLE `kpdemo-secret-projects` (
  `id` int NOT NULL,
  `codename` varchar(100) NOT NULL,
  PRIMARY KEY (`id`)
);
