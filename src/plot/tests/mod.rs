mod picturing;
