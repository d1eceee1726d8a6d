include $(sort $(wildcard $(BR2_EXTERNAL_TESTFLINGER_AGENT_PATH)/package/*/*.mk))
