################################################################################
#
# testflinger-agent
#
################################################################################

TESTFLINGER_AGENT_VERSION = 0.1.0
# The sources that this directory lies in.
TESTFLINGER_AGENT_SITE = $(BR2_EXTERNAL_TESTFLINGER_AGENT_PATH)/../..
TESTFLINGER_AGENT_SITE_METHOD = local
TESTFLINGER_AGENT_LICENSE = MIT or Apache-2.0
TESTFLINGER_AGENT_LICENSE_FILES = LICENSE
TESTFLINGER_AGENT_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target

# Buildroot builds without the network, and fetches the crates of what it downloads
# itself only.
define TESTFLINGER_AGENT_FETCH_CRATES
	cd $(@D) && $(HOST_MAKE_ENV) $(PKG_CARGO_ENV) cargo fetch --locked
endef
TESTFLINGER_AGENT_PRE_BUILD_HOOKS += TESTFLINGER_AGENT_FETCH_CRATES

define TESTFLINGER_AGENT_INSTALL_FOR
	DESTDIR=$(TARGET_DIR) PREFIX=/usr INIT=$(1) BINARY=$(TARGET_DIR)/usr/bin/testflinger-agent \
		sh $(TESTFLINGER_AGENT_SITE)/cross/install/install.sh
endef

# To Buildroot both are of one kind, but their inittabs are not. These are other
# packages' files: they are there for sure, and stay as they are made, only when all
# packages have been installed. Where there is none, a start script is put instead.
ifeq ($(BR2_INIT_BUSYBOX),y)
TESTFLINGER_AGENT_INITTAB = busybox
else ifeq ($(BR2_INIT_SYSV),y)
TESTFLINGER_AGENT_INITTAB = sysvinit
endif

ifneq ($(TESTFLINGER_AGENT_INITTAB),)
define TESTFLINGER_AGENT_INSTALL_INITTAB
	$(call TESTFLINGER_AGENT_INSTALL_FOR,$(TESTFLINGER_AGENT_INITTAB))
endef
TESTFLINGER_AGENT_TARGET_FINALIZE_HOOKS += TESTFLINGER_AGENT_INSTALL_INITTAB
endif

# systemd starts it because of Buildroot's presets.
define TESTFLINGER_AGENT_INSTALL_INIT_SYSTEMD
	$(call TESTFLINGER_AGENT_INSTALL_FOR,systemd)
endef

define TESTFLINGER_AGENT_INSTALL_INIT_OPENRC
	$(call TESTFLINGER_AGENT_INSTALL_FOR,openrc)
	mkdir -p $(TARGET_DIR)/etc/runlevels/default
	ln -sf /etc/init.d/testflinger-agent $(TARGET_DIR)/etc/runlevels/default/
endef

$(eval $(cargo-package))
