-- The demo's database and the account of kpbackup, with the grants `kpbackup doctor` asks for and no more.
CREATE DATABASE shop;
CREATE TABLE shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(100), placed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
INSERT INTO shop.orders (note) VALUES ('first'), ('second'), ('third');
CREATE USER kpbackup@'%' IDENTIFIED BY 'kpbackup-demo-only';
GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, RELOAD, PROCESS, BACKUP_ADMIN, XA_RECOVER_ADMIN, SHOW_ROUTINE, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO kpbackup@'%';
